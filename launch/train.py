from genmask_jax.commands.train import start

if __name__ == "__main__":
    start()
