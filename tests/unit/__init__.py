"""One module each, by example."""
