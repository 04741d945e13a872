"""Readers of public raw data, one module per publisher's layout. Each returns a `Plan` of what to prepare."""
