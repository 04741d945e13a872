"""Qwen2.5-VL as an encoder of an instruction and its image."""
