"""DataService: brings inputs to jobs and outputs to where they belong, each step idempotent background work."""
