"""Tests of the developer API, over a real engine on a store in memory."""
