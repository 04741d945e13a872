from genmask_jax.commands.evaluate import start

if __name__ == "__main__":
    start()
