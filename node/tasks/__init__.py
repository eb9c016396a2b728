"""Bulk tasks: what is done to many jobs, step by step, whichever nodes lead their vnodes.

A task is a record of the meta group. The node leader conducts it: again and again it orders the
leaders of the task's vnodes to go on with it, and hears how far they are. Each of them walks
through the vnodes that it was ordered to, reads some hundred rows of the index that leads to the
jobs, and proposes one `Bulk` command for those that are meant. That command also says how far the
task got in that vnode, and is void if it had got further already: so a step that was proposed again
after a crash changes nothing twice, and who leads the vnode next goes on there. When all vnodes
are finished, the node leader ends the task with the sums.

Nobody begins by what its own meta group says: that may be behind, and the task over. An order holds
for a while, so a node that hears no more of the node leader stops.

    walking.py     one task in one vnode
    running.py     one task in the vnodes that this node leads
    conducting.py  one task on the node leader
    tasks.py       all of them, as the engine has them
"""

from node.tasks.tasks import Tasks
from node.tasks.walking import selection_of

__all__ = ["Tasks", "selection_of"]
