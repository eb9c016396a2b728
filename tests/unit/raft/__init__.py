"""The Raft core by itself: by example, by script, and by the sentences of its paper."""
