from genmask_jax.commands.benchmark import main

if __name__ == "__main__":
    main()
