"""`python -m tests.sim.mutations.table`: the table of `docs/design/simulation.md`, as it should be.

Prints it, for whoever has counted anew.
"""

from pathlib import Path
from typing import Final

from tests.sim.mutations import MUTATIONS, seeds_needed

PAGE: Final = Path(__file__).resolve().parents[3] / "docs" / "design" / "simulation.md"


def table() -> str:
    """All mutations in their order: name, what it does, found by, seeds."""
    lines = ["| fault | what it does | found by | seeds |", "|---|---|---|---|"]
    for name, each in MUTATIONS.items():
        seeds = f"{seeds_needed(name)}{' (core)' if each.core else ''}"
        lines.append(f"| `{name}` | {each.breaks} | {', '.join(each.checks)} | {seeds} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
