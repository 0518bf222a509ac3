"""The PanDA pilot: takes jobs from the server and runs them on a worker node."""

__version__ = "0.1.0"
