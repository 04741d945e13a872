"""Imports and exports public weights, and converts the weights of runs."""
