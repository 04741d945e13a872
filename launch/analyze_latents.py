from genmask_jax.commands.analyze_latents import start

if __name__ == "__main__":
    start()
