"""Tests of the ways between nodes."""
