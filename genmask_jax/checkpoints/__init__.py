"""Trained networks on disk: runs, packed models, and the weights that a run starts from."""
