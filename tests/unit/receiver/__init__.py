"""What recipients rely on."""
