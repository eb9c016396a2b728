"""What is raised when an invariant does not hold."""


class Violation(AssertionError):
    """An invariant is broken. `rule` names it: S1 to S14."""

    def __init__(self, rule: str, sentence: str) -> None:
        super().__init__(f"{rule}: {sentence}")
        self.rule = rule
