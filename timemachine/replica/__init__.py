"""One replica's state: the closed set of commands, and the machines that alone apply them.

`commands` is what the log may carry, `results` what applying answers, `machine` the sole writer
of job state, `meta` the same for what the whole cluster agrees on (databases, collections,
routes, settings), `snapshot` the image of a replica, out and in. Applying is a pure function of
the log: a command carries the proposer's `now_ms` and every value of meta that it uses.
"""
