"""The tests, by what a test may touch.

`unit` and `property` touch nothing but memory (and the files of one temporary folder); `scripts`
holds golden scenarios that unit tests replay; `sim` runs the node's production code on a virtual
clock, disk and network; `integration` starts real nodes on loopback; `typing` is only type-checked.
"""
