"""Specifications of devices, and FLOPs of traced functions."""
