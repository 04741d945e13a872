"""Instruction encoders: text (and images) to embeddings."""
