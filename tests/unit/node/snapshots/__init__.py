"""Both sides of a transfer of an image, each alone."""
