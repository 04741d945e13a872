from genmask_jax.commands.prepare_data import main

if __name__ == "__main__":
    main()
