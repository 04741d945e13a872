from genmask_jax.commands.score import start

if __name__ == "__main__":
    start()
