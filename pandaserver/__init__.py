"""The PanDA server: a queue of jobs that pilots pull, behind HTTPS."""

__version__ = "0.1.0"
