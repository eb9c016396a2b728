"""Real processes and sockets on loopback."""
