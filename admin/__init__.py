"""The admin's command line. It asks a node over its API and imports nothing of the server."""
