"""Join tokens: what is shown once, and what is kept."""

import hashlib
import re

import pytest

from tests.unit.project import ROOT
from timemachine.jointokens import JOIN_REFUSALS, SEED_BYTES, new_token, read_token

SEED = bytes(range(SEED_BYTES))
TOKEN = "000102030405.BgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCU"


def test_a_token_is_its_id_and_its_secret() -> None:
    """Both in letters that stand in any command line."""
    assert new_token(SEED).text == TOKEN
    assert new_token(SEED) == read_token(TOKEN)


def test_the_parts_tell_the_hash_and_not_the_secret() -> None:
    """What the cluster keeps does not let anybody join."""
    parts = read_token(f" {TOKEN}\n")
    assert parts.id == "000102030405"
    assert parts.secret_hash == hashlib.sha256(TOKEN.partition(".")[2].encode()).digest()


@pytest.mark.parametrize(
    "text",
    ["", "a.b", TOKEN[:-1], TOKEN + "a", TOKEN.replace(".", ":"), "٠" + TOKEN[1:]],
)
def test_what_is_no_token_is_refused_and_not_repeated(text: str) -> None:
    """It may be nearly a token, and errors are logged."""
    with pytest.raises(ValueError, match="no join token") as caught:
        read_token(text)
    assert not text or text not in str(caught.value)


def test_every_refusal_of_a_joiner_has_a_sentence() -> None:
    """The codes stand where they are decided."""
    source = (ROOT / "timemachine" / "replica" / "meta" / "nodes.py").read_text()
    codes = set(re.findall(r'refused\("(\w+)"\)', source)) - {"too_many_tokens"}
    assert codes == JOIN_REFUSALS.keys()
