"""UserIF: what users ask for."""
