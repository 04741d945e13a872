"""The web page of launch/demo.py."""
