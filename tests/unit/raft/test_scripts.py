"""Scenarios as golden scripts: each file in tests/scripts/raft is one, and its name says which.

A script is blocks of a command, `----`, and what it answers; lines with # are comments. After a
wanted change, `python -m tests.unit.raft.test_scripts` rewrites the answers. Read the difference,
and commit it only if you understand every line of it.

    start [setting=number ...]          a new replica, the only voter of its group
    campaign | tick NUMBER | propose WORD ... | step KIND [field=number ...]
    ready | persist | apply | advance   the duties of one Ready
    settle                              all duties until nothing is left to do
    sync | compact INDEX | restart      the disk; restart forgets what was not synced
    status | machine                    the vital signs; what was applied
"""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.raft.host import Host
from timemachine.errors import TimeMachineError
from timemachine.raft import Entry, Message, MessageType, Ready

SCRIPTS = Path(__file__).parents[2] / "scripts" / "raft"


def describe(ready: Ready) -> str:
    """A Ready as lines, what is unchanged or empty left out."""
    lines = [f"Ready must_sync={ready.must_sync}"]
    if ready.soft_state is not None:
        lines.append(f"  {ready.soft_state.role.name} leader={ready.soft_state.leader}")
    if ready.hard_state is not None:
        state = ready.hard_state
        lines.append(f"  hard state term={state.term} vote={state.vote} commit={state.commit}")
    for name, entries in (
        ("entries", ready.entries),
        ("committed entries", ready.committed_entries),
    ):
        if entries:
            lines.append(f"  {name}: {describe_entries(list(entries))}")
    for message in ready.messages:
        refused = " refused" if message.reject else ""
        lines.append(f"  to {message.to}: {message.type.name} term={message.term}{refused}")
    return "\n".join(lines)


def describe_entries(entries: list[Entry]) -> str:
    """Each entry as term/index and data."""
    return ", ".join(
        f"{entry.term}/{entry.index} {entry.data.decode() or '(empty)'}" for entry in entries
    )


class Script:
    """Runs the commands of one script, one after the other."""

    def __init__(self) -> None:
        self.host = Host()
        self.outstanding = Ready()

    def run(self, command: str) -> str:
        """Do `command`; its answer, or the error it ran into."""
        name, *words = command.split()
        numbers = {key: int(value) for key, _, value in (w.partition("=") for w in words) if value}
        plain = [word for word in words if "=" not in word]
        try:
            answer = getattr(self, name)(*plain, **numbers)
        except TimeMachineError as error:
            return f"{type(error).__name__}: {error}"
        return answer or "ok"

    def start(self, **settings: int) -> str:
        """A new replica."""
        self.host = Host(**settings)
        return self.status()

    def campaign(self) -> None:
        """Start an election."""
        self.host.node.campaign()

    def tick(self, count: str) -> None:
        """Let time pass."""
        for _ in range(int(count)):
            self.host.node.tick()

    def propose(self, *words: str) -> None:
        """One proposal a word."""
        for word in words:
            self.host.node.propose(word.encode())

    def step(self, kind: str, **fields: Any) -> None:
        """A message from outside."""
        if "from" in fields:
            fields["from_"] = fields.pop("from")
        self.host.node.step(Message(MessageType[kind], **fields))

    def ready(self) -> str:
        """Take the next Ready."""
        if not self.host.node.has_ready():
            return "nothing to do"
        self.outstanding = self.host.node.ready()
        return describe(self.outstanding)

    def persist(self) -> None:
        """Duty 1 of the Ready that was taken."""
        self.host.persist(self.outstanding)

    def apply(self) -> None:
        """Duty 3."""
        self.host.apply(self.outstanding)

    def advance(self) -> None:
        """Duty 4."""
        self.host.node.advance()

    def settle(self) -> str:
        """All duties of all Readys."""
        return "\n".join(map(describe, self.host.settle()))

    def sync(self) -> None:
        """Make durable what was written."""
        self.host.sync()

    def compact(self, index: str) -> None:
        """Drop the front of the log."""
        self.host.storage.compact(int(index))

    def restart(self) -> str:
        """Crash, and start from the disk."""
        self.host.restart()
        return self.status()

    def status(self) -> str:
        """The vital signs."""
        status = self.host.node.status()
        return (
            f"{status.role.name} leader={status.leader} term={status.term} vote={status.vote}"
            f" commit={status.commit} applied={status.applied}"
            f" log={status.first_index}..{status.last_index}"
        )

    def machine(self) -> str:
        """What was applied."""
        return describe_entries(self.host.machine) or "nothing"


def replay(text: str) -> str:
    """The script with the answers that its commands give now."""
    script = Script()
    blocks = []
    for block in text.strip().split("\n\n"):
        command, _, _ = block.partition("\n----")
        *comments, last = command.splitlines()
        answer = "" if last.startswith("#") else f"\n----\n{script.run(last)}"
        blocks.append("\n".join([*comments, last]) + answer)
    return "\n\n".join(blocks) + "\n"


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.txt")), ids=lambda path: path.stem)
def test_script(path: Path) -> None:
    """The scenario goes as it is written down."""
    assert path.read_text() == replay(path.read_text())


def test_scripts_are_found() -> None:
    """A moved directory must not pass for a green run."""
    assert 8 <= len(list(SCRIPTS.glob("*.txt")))


if __name__ == "__main__":
    for script_path in SCRIPTS.glob("*.txt"):
        script_path.write_text(replay(script_path.read_text()))
