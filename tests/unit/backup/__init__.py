"""What a backup is, and what becomes of its jobs."""
