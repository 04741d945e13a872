"""Qwen2.5-VL, which reads an instruction, and the image it is about, for the DiT."""
