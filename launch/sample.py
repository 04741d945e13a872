from genmask_jax.commands.sample import main

if __name__ == "__main__":
    main()
