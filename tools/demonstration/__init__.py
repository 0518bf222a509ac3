"""The demonstration: a temporary grid, real physics on it, and what a person sees meanwhile."""
