"""Tests of real processes: a node, a recipient, and what goes wrong around them."""
