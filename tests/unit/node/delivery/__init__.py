"""Tests of `node.delivery`."""
