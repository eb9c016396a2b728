"""The store, its twin and its keys."""
