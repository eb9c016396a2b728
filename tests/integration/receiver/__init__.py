"""Recipients as processes and threads that share one database."""
