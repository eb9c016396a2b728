"""Images of replicas on their way between nodes: `sending` on the one, `receiving` on the other.

    SnapshotsOut                                SnapshotsIn
    start: a view, its applied index
                     -- chunk 0, message -->    stage: a range, marked to be erased
                     <-- following 1 --         its rows are durable
                     -- chunk 1 -->
                     <-- following 2 --
                     -- end -->                 everything is there, and adds up
                     <-- following 3 --
    report: arrived                             install: the core gets the message

One chunk is under way, and it is sent again until it is answered, so lost, doubled, late and
overtaken frames do no harm. When no answer comes for long, the sender keeps where it was, and goes
on from there if the follower is back soon. A crash of the receiver ends the transfer: the range
that it had begun is erased at its next start, and the core asks for another snapshot.
"""
