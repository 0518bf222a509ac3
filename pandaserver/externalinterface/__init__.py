"""ExtIF: what other systems say and hear: DDM callbacks, queue and storage information."""
