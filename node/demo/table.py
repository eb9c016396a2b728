"""What came of the promises, as a table."""

from rich.table import Table

from node.demo.judge import Verdict, at_share

_WORDS = {"killed": "kill -9", "paused": "SIGSTOP"}


def draw(verdict: Verdict, accepted: int, bad_signatures: int) -> Table:
    """The table that the demo ends with."""
    table = Table(title="What the receiver saw", show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_row("jobs accepted", str(accepted))
    table.add_row("jobs delivered", str(verdict.delivered))
    table.add_row("lost", _judged(verdict.lost))
    table.add_row("repeats (same webhook-id, cut off in flight)", str(verdict.repeats))
    table.add_row("repeats without that excuse", _judged(verdict.unexcused))
    table.add_row("early", _judged(verdict.early))
    table.add_row("bad signatures", _judged(bad_signatures))
    if verdict.lateness:
        for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0)):
            table.add_row(
                f"lateness {name}, outside of faults", f"{at_share(verdict.lateness, share)} ms"
            )
    for recovery in verdict.recoveries:
        fault = recovery.fault
        word = _WORDS[fault.what]
        table.add_section()
        table.add_row(f"{word} of {fault.node}: vnodes that it led", str(len(fault.vnodes)))
        if recovery.fired_again_ms is not None:
            table.add_row("all of them fired again after", f"{recovery.fired_again_ms} ms")
        if recovery.others:
            for name, share in (("p50", 0.5), ("p99", 0.99)):
                table.add_row(
                    f"lateness {name} of the others meanwhile",
                    f"{at_share(recovery.others, share)} ms",
                )
        if fault.what == "killed":
            table.add_row("the node was dead for", f"{fault.restart_ms - fault.begin_ms} ms")
            table.add_row(
                "started again, it was ready after", f"{fault.end_ms - fault.restart_ms} ms"
            )
        else:
            table.add_row("the node stood still for", f"{fault.end_ms - fault.begin_ms} ms")
    return table


def _judged(count: int) -> str:
    return f"[bold red]{count}[/]" if count else f"[green]{count}[/]"
