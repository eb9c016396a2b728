"""Recipients as processes and threads that share one database, and stores on real servers."""
