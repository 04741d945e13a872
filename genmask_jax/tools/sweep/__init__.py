"""Sweeps: variants of a training or its evaluation, over several seeds, and a table of their scores."""
