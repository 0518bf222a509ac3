"""The PanDA monitor: one cached window on jobs, sites and data."""

__version__ = "0.1.0"
