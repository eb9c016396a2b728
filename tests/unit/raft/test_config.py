"""timemachine/raft/config.py: what a host may choose."""

import pytest

from timemachine.errors import ConfigError
from timemachine.limits import ENTRY_BYTES_MAX
from timemachine.raft.config import Config


def test_defaults_are_valid_and_have_room_for_a_full_entry() -> None:
    """Only the id must be given; the default limits fit the largest entry there is."""
    config = Config(id=1)
    config.validate()
    assert ENTRY_BYTES_MAX < config.committed_size_per_ready_max
    assert ENTRY_BYTES_MAX < config.uncommitted_size_max


@pytest.mark.parametrize("replica", [1, 2**64 - 3])
def test_every_id_but_the_reserved_ones_is_valid(replica: int) -> None:
    """Ids go from 1 to just below those that stand for the local threads."""
    Config(id=replica).validate()


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (Config(id=0), "id"),
        (Config(id=2**64 - 2), "id"),
        (Config(id=2**64 - 1), "id"),
        (Config(id=1, election_tick=0), "election_tick"),
        (Config(id=1, applied=-1), "applied"),
        (Config(id=1, committed_size_per_ready_max=0), "committed_size_per_ready_max"),
        (Config(id=1, uncommitted_size_max=0), "uncommitted_size_max"),
        (Config(id=1, heartbeat_tick=0), "heartbeat_tick"),
        (Config(id=1, heartbeat_tick=10, election_tick=10), "election_tick"),
        (Config(id=1, inflight_messages_max=0), "inflight_messages_max"),
        (Config(id=1, inflight_bytes_max=9, message_bytes_max=10), "inflight_bytes_max"),
        (Config(id=1, lease_reads=True), "lease_reads"),
    ],
)
def test_a_senseless_value_is_named(config: Config, named: str) -> None:
    """What makes no sense is refused, and the message says which field it is."""
    with pytest.raises(ConfigError, match=f"raft {named}:"):
        config.validate()
