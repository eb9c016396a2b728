"""What holds for all inputs, often shown by comparison with a simpler twin."""
