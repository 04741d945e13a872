"""Qwen2.5-VL, which encodes an instruction and its image for the DiT."""
