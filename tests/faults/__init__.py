"""Faults of disks, injected below a running node."""
