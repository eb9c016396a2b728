"""Replicas of the Raft core that talk to each other: what the dissertation and etcd promise.

`peer.Peer` is a replica with a host that does its duties at once; `network.Network` carries what
they say. The tests are those of etcd's own suites that say something about behaviour, and not
about the insides of etcd: `test_paper_*` has one for each of its `raft_paper_test.go`.
"""
