"""Judges of what a cluster did. They serve the simulator and real processes, and know neither."""
