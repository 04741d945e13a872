"""The benchmarks of launch/benchmark.py."""
