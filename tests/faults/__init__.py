"""What can go wrong outside of a node: recipients that misbehave, certificates that do not fit."""
