"""Brokerage: which queue a job goes to, and what was said of each; pure choice, no I/O."""
