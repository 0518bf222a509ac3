"""Batch systems behind one small protocol, so that the engine never knows which of them it feeds."""
