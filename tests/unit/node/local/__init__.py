"""Tests of clusters on one machine."""
