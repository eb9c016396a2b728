"""The meta machine."""
