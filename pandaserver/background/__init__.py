"""The Python threads: a pool over the durable work queue, and periodic duties under leases."""
