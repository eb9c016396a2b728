"""The judge of `confchange`: a group whose membership changes step by step."""

from tests.etcd.blocks import Block
from tests.etcd.texts import config_text, progress_text, read_changes
from timemachine.raft.confchange import Changer, ConfChangeRefused
from timemachine.raft.tracker import Tracker

COMMANDS = frozenset({"simple", "enter-joint", "leave-joint"})


class Memberships:
    """One file: a group that begins without members.

    Its log grows by an entry with each block, so that `next` of a member shows when it came.
    """

    def __init__(self) -> None:
        self._tracker = Tracker(10)
        self._last_index = 0

    def answer(self, block: Block) -> str:
        """The membership after the block, or why it stayed."""
        changer = Changer(self._tracker, self._last_index)
        self._last_index += 1
        command = block.command
        try:
            changes = read_changes(block.input)
            if command.name == "simple":
                membership = changer.simple(changes)
            elif command.name == "enter-joint":
                membership = changer.enter_joint(command.flag("autoleave"), changes)
            elif changes:
                return "this command takes no input"
            else:
                membership = changer.leave_joint()
        except (ValueError, ConfChangeRefused) as refusal:
            return str(refusal)
        self._tracker.config, self._tracker.progress = membership
        return f"{config_text(self._tracker.config)}\n{progress_text(self._tracker.progress)}"
