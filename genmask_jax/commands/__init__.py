"""The commands: `launch/NAME.py` of a checkout, and `genmask-NAME` where the package is installed."""
