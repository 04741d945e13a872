"""Analysis of a VAE's latents of masks and of images, clean and with noise."""
