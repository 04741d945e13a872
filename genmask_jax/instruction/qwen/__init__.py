"""Qwen2.5-VL, which reads an instruction, and the picture it is about, for the DiT."""
