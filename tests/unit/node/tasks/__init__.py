"""Bulk tasks of several nodes."""
