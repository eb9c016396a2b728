"""Plans of what moves, part by part."""
