from genmask_jax.commands.encode_latents import start

if __name__ == "__main__":
    start()
