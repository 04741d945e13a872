from genmask_jax.commands.train_vae import start

if __name__ == "__main__":
    start()
