"""timemachine/raft/__init__.py: the story runs, and the package shows what it means to show."""

import doctest

import timemachine.raft


def test_the_host_loop_of_the_story_runs() -> None:
    """The loop in the package docstring is real code."""
    result = doctest.testmod(timemachine.raft)
    assert (0, True) == (result.failed, result.attempted > 5)


def test_all_is_sorted_and_complete() -> None:
    """`__all__` names what the package imports for its users, constants first."""
    exported = timemachine.raft.__all__
    assert sorted(exported, key=lambda name: (not name.isupper(), name)) == exported
    public = {
        name
        for name, value in vars(timemachine.raft).items()
        if not name.startswith("_") and type(value).__name__ != "module"
    }
    assert public == set(exported)
