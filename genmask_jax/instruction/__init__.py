"""Instruction encoders: words (and pictures) to embeddings."""
