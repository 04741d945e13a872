"""Readers of raw data, one module per layout. Each returns a `Plan` of the dataset to prepare."""
