"""Metrics that are exact for any batch size and any number of processes."""
