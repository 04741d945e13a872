"""Runs a script of `launch/` with even the smallest parameters divided: fsdp_everything.py SCRIPT FLAGS."""

import runpy
import sys

from genmask_jax.parameters import rules

rules.FSDP_MIN_SIZE = 64
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
