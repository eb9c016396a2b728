"""Giving space back: plans of the kind `compact`, by the nodes that they are about.

Meta says which nodes have begun their parts. Each node reads that in its own copy of meta and
compacts its own store; the node leader asks how far they are, and has the next ones begin.

    working.py   a node's own part
    leading.py   what the node leader does about all parts
    reports.py   how far a node is, as it tells
"""
