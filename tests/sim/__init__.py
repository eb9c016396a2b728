"""The seeded simulation: the node's production code on a virtual clock, disk and network."""
