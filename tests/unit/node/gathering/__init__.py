"""Reading over many vnodes of several nodes."""
