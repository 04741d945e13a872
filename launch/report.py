from genmask_jax.commands.report import main

if __name__ == "__main__":
    main()
