"""Measures the server: how fast it is, and what it costs in CPU time."""
