"""The DDM protocol and its back ends."""
