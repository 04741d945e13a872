"""Conversion of public weights to our modules and back."""
