"""HTTP: one declaration per call serves both dialects; identity, authorisation, wire formats."""
