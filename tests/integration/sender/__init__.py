"""The webhook sender against recipients that misbehave, on both event loops."""
