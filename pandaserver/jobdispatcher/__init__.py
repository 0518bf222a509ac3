"""JobDispatcher: what pilots ask for, and the watcher of those who fell silent."""
