"""Firing, as far as it is decided: which jobs come next, whose turn it is, what an outcome means.

`node/delivery` reads the store, commits and sends; what it asks here is a function of its
arguments, time and chance among them.

    item         one due job on its way through queue, claim and send
    vnodehead    the head of one vnode's due index, and what keeps the offset down
    routequeue   the due jobs of one route: their order, the limits on flight and rate
    breaker      whether a route's recipient is worth a request now
    shares       which part of a route's limits a node of a cluster owns
    window       the heads and queues of a node, and the sends that it may have open
    settlement   what is committed of an attempt that ended, or that nobody saw end
    lateness     how late first attempts started
"""
