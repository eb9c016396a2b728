"""Tests of what delivery decides."""
