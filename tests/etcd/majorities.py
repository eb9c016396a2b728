"""The judge of `quorum`: what a majority, or two at once, commit and elect.

A block names voters and what each of them acknowledged or voted. Beside the answer, what must not
matter is tried: the order of two halves, an empty half, a half twice. If it does matter, a line of
the answer says so, and no file expects that line.
"""

from tests.etcd.blocks import Block
from timemachine.raft.quorum import JointVoters, VoteResult

COMMANDS = frozenset({"committed", "vote"})
_RESULTS = {
    VoteResult.PENDING: "VotePending",
    VoteResult.LOST: "VoteLost",
    VoteResult.WON: "VoteWon",
}


class Majorities:
    """The answers to one file. They do not depend on each other."""

    def answer(self, block: Block) -> str:
        """What our core says."""
        options = block.command.options
        first = [int(voter) for voter in options.get("cfg", []) if voter]
        joint = "cfgj" in options
        second = [int(voter) for voter in options.get("cfgj", []) if voter != "zero"]
        voters = JointVoters(frozenset(first), frozenset(second))
        # Each voter's value, in the order of their first naming.
        order = list(dict.fromkeys([*first, *second]))
        values = [each for key in ("idx", "votes") for each in options.get(key, []) if each]
        if len(order) != len(values):
            return f"error: mismatched input (explicit or _) for voters {order}: {values}"
        given = {voter: value for voter, value in zip(order, values, strict=True) if value != "_"}
        if block.command.name == "vote":
            return _vote(voters, {voter: vote == "y" for voter, vote in given.items()})
        acked = {voter: int(index) for voter, index in given.items()}
        return _picture(voters, acked) + _committed(voters, acked, joint=joint)


def _vote(voters: JointVoters, votes: dict[int, bool]) -> str:
    result = voters.vote(votes)
    turned = JointVoters(voters.outgoing, voters.incoming).vote(votes)
    text = "" if turned is result else f"{_RESULTS[turned]} <-- via symmetry\n"
    return f"{text}{_RESULTS[result]}\n"


def _committed(voters: JointVoters, acked: dict[int, int], *, joint: bool) -> str:
    index = voters.committed(acked)
    others = {"symmetry": JointVoters(voters.outgoing, voters.incoming)}
    if not joint:
        others["zero-joint quorum"] = JointVoters(frozenset(), voters.incoming)
        others["self-joint quorum"] = JointVoters(voters.incoming, voters.incoming)
    text = ""
    for name, other in others.items():
        if (found := other.committed(acked)) != index:
            text += f"{found} <-- via {name}\n"
    for voter, mine in acked.items():
        # Who is behind what is committed could as well be further behind.
        for less in (mine - 1, 0):
            lowered = voters.committed({**acked, voter: less})
            if mine < index and not joint and lowered != index:
                text += f"{lowered} <-- overlaying {voter}->{less}\n"
    # etcd writes "the end of the log" of nobody as an infinity sign.
    shown = "∞" if index == 2**64 - 1 else index
    return f"{text}{shown}\n"


def _picture(voters: JointVoters, acked: dict[int, int]) -> str:
    """A bar for each voter, of one `x` for each voter that is behind it."""
    ids = sorted(voters.ids())
    if not ids:
        return "<empty majority quorum>"
    width = len(ids)
    indexes = {voter: acked.get(voter, 0) for voter in ids}
    lines = [" " * width + "    idx\n"]
    for voter in ids:
        behind = sum(index < indexes[voter] for index in indexes.values())
        bar = "x" * behind + ">" if voter in acked else "?"
        lines.append(f"{bar:<{width + 1}} {indexes[voter]:5d}    (id={voter})\n")
    return "".join(lines)
