"""Where a node keeps its state: a sorted byte map with one synced batch per cycle.

`api` is the port, `memory` the reference twin, `leveldb` the engine, `overlay` the view that
applying reads through while batches are on their way to the disk, `keys` the key layout.
"""
