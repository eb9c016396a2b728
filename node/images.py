"""What replicas need when their log does not reach back far enough: images, out and in.

`node/snapshots/` carries them; here it is joined with the replicas of this node.
"""

from node.env import World
from node.peers import Peers
from node.replicas import Replicas
from node.runtime import Runtime
from node.snapshots.receiving import SnapshotsIn
from node.snapshots.sending import SnapshotsOut
from timemachine.errors import StoreDamaged
from timemachine.raft import Message
from timemachine.storage.api import Store
from timemachine.storage.keys import ReplicaKeys
from timemachine.storage.overlay import Overlay
from timemachine.transfers import Group
from timemachine.vnode import NO_INDEX, Vnode


class Images:
    """Sends what cores ask for, and installs what comes."""

    def __init__(
        self,
        world: World,
        store: Store,
        overlay: Overlay,
        runtime: Runtime,
        peers: Peers,
        replicas: Replicas,
        *,
        chunk_bytes: int,
        bytes_per_s: int,
    ) -> None:
        self._runtime = runtime
        self._replicas = replicas
        self.outgoing = SnapshotsOut(
            world,
            view=store.view,
            keys_of=self._keys_of,
            log_base=self._log_base,
            send=peers.chunk,
            report=self._report,
            damaged=runtime.damaged,
            chunk_bytes=chunk_bytes,
            bytes_per_s=bytes_per_s,
        )
        self.incoming = SnapshotsIn(
            world,
            overlay,
            stage=self._stage,
            discard=replicas.unstage,
            install=self._install,
            send=peers.chunk_answer,
            when_written=runtime.when_written,
        )
        peers.send_snapshot = self.outgoing.start

    def _keys_of(self, group: Group) -> ReplicaKeys | None:
        vnode = self._runtime.vnodes.get(group)
        return None if vnode is None or not vnode.is_leader() else vnode.keys

    def _log_base(self, group: Group) -> int:
        vnode = self._runtime.vnodes.get(group)
        return NO_INDEX if vnode is None else vnode.log_base

    def _report(
        self,
        group: Group,
        replica: int,
        failed: bool,  # noqa: FBT001 - a callback
    ) -> None:
        vnode = self._runtime.vnodes.get(group)
        if vnode is not None:
            vnode.core.report_snapshot(replica, failed=failed)
            self._runtime.stepped(vnode)

    def _stage(self, group: Group, message: Message) -> ReplicaKeys | None:
        """Only what this replica may need has a place here."""
        vnode = self._runtime.vnodes.get(group)
        snapshot = message.snapshot
        if vnode is None or snapshot is None or message.term < vnode.core.term:
            return None
        if snapshot.metadata.index <= vnode.core.commit:
            self._tell_how_far(vnode, message)
            return None
        return self._replicas.stage()

    def _tell_how_far(self, vnode: Vnode, message: Message) -> None:
        """The leader does not know that this replica has all that, and would offer it for ever."""
        if vnode.resting:
            self._runtime.rouse(vnode)
        try:
            vnode.core.step(message)
        except StoreDamaged as error:
            self._runtime.broken(vnode, error)
        else:
            self._runtime.stepped(vnode)

    def _install(self, group: Group, message: Message, keys: ReplicaKeys) -> None:
        vnode = self._runtime.vnodes.get(group)
        if vnode is not None and vnode.resting:
            self._runtime.rouse(vnode)
        try:
            installs = vnode is not None and vnode.install(message, keys)
        except StoreDamaged as error:
            assert vnode is not None
            self._replicas.unstage(keys)
            self._runtime.broken(vnode, error)
            return
        if vnode is None or not installs:
            self._replicas.unstage(keys)
            return
        self._runtime.stepped(vnode)

    def kept_from(self, group: Group) -> int:
        """The log behind this index is needed by who gets an image of the group."""
        index = self.outgoing.keep_from(group)
        return NO_INDEX if index is None else index

    def left(self, group: Group) -> None:
        """This node does not lead the group any more."""
        self.outgoing.cancel(group)

    def removed(self, vnode: Vnode) -> None:
        """This node has no replica of the group any more."""
        self.outgoing.cancel(vnode.group)
        self.incoming.forget(vnode.group)
        if vnode.staged is not None:
            self._replicas.unstage(vnode.staged)

    def close(self) -> None:
        """The store is about to be closed."""
        self.outgoing.close()
        self.incoming.close()
