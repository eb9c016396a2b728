"""Firing: from the due index to a settled attempt. See `docs/design/delivery.md`.

    scanning    the due index is read, a little ahead of time
    admitting   a row goes to the queue of its route, stays behind, or goes out of the way
    refilling   what stayed behind of a route comes when its queue has room
    claiming    jobs that have slots: the intent of their attempts is committed
    sending     at the due moment, the request of an attempt that is claimed
    settling    what follows from how it ended is committed

    leading      vnodes come, go, and are given away, with what is open of them
    orphans      claims of leaders that are gone are closed: what became of them is unknown
    parking     what its route cannot take moves to the route's waiting index, or ends with it
    sweeping    the same for many jobs, in the background
    shares      which part of the routes' limits this node owns, as nodes come and go
    waits       routes that wait because their recipient asked for it
    breakers    routes whose recipient fails: nothing is sent for a while, then a little
    failures    what the meta group is told of routes that fail, until it disables them
    routes      what a change of a route means for its jobs
    offsets     the committed offset follows what is settled

    pump        does all this in order, and sets the timer for the next moment
    delivery    what the engine sees of it

What is decided in these steps, and held in memory, is in `timemachine/delivery`. Rules kept here:
a send needs its claim applied as valid in the current term and `now >= due`; a claim is asked for
only when the job's route and the node have a free slot, at most CLAIM_LEAD_MS ahead; what is in
flight is remembered, so nothing is claimed twice; neither window nor offset is held up by one
route.
"""

from node.delivery.delivery import Delivery

__all__ = ["Delivery"]
