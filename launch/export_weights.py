from genmask_jax.commands.export_weights import main

if __name__ == "__main__":
    main()
