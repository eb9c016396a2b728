"""Tests of a node's parts."""
