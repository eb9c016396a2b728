"""A cluster in one process: the production code of every node over one virtual world.

Nothing here reads a clock, throws dice of its own or opens a socket, so a seed is a whole history:
the same seed gives the same trace, on any machine and under any PYTHONHASHSEED. The parts, in
reading order:

* `clockwork`: one heap of virtual time for all nodes; counts events, keeps their trace;
* `nodeworld`: what one node sees of it, the `World` port: drifting clocks, timers that die with
  their process, pauses;
* `network`: frames between nodes, late, lost, doubled, overtaken, cut off;
* `disk`: batches that are durable, lost, refused or damaged;
* `recipients`: where webhooks go, and what arrived there;
* `knobs`: every number that a seed draws;
* `nemesis`: the plan of faults, and their end.

Two rules keep it repeatable: no set of strings is iterated, and nothing depends on `hash` of a
string or on `id`.
"""
