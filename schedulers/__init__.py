"""The PanDA schedulers: they send pilots to batch systems."""

__version__ = "0.1.0"
