"""Instruction encoders: words (and images) to embeddings."""
