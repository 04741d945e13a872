"""GenMask-JAX: one diffusion transformer that draws images and segmentation masks."""

__version__ = "0.1.0"
