"""What PanDA talks about: jobs, files, datasets, queues, pilots. Pure Python, no I/O."""
