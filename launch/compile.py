from genmask_jax.commands.compile import start

if __name__ == "__main__":
    start()
