"""Plans that wait for somebody, or for something."""

from collections.abc import Iterator

from admin import planned, shown
from admin.diagnosis.seen import Finding, Names, Seen


def of_plans(seen: Seen, names: Names) -> Iterator[Finding]:
    """Plans that wait, or may be confirmed, and the one that runs."""
    for plan in seen.plans:
        told = f"Plan {plan['id']} ({plan['kind']})"
        watch = f"timemachine admin plan %s {plan['id']}"
        if plan["state"] == "paused":
            yield Finding(
                code="plan_paused",
                level="act",
                what=f"{told} is paused, and no other can run.",
                do=f"`{watch % 'resume'}` goes on with it, `{watch % 'cancel'}` ends it.",
            )
        elif plan["state"] == "running" and plan["waits_for"]:
            waits = ", ".join(names.get(each, each) for each in plan["waits_for"])
            yield Finding(
                code="plan_waits",
                level="act",
                what=f"{told} waits for {waits}, which does not answer.",
                do=f"Start it, or `{watch % 'cancel'}`.",
            )
        elif plan["state"] == "running":
            yield Finding(
                code="plan_runs",
                level="note",
                what=f"{told} runs: {planned.progress(plan)}.",
                do=f"`{watch % 'watch'}` shows how far it is.",
            )
        elif plan["state"] == "proposed":
            yield Finding(
                code="plan_proposed",
                level="note",
                what=f"{told} was not confirmed yet.",
                do=f"`{watch % 'confirm'}` before {shown.time(plan['expires_time'])} has it run.",
            )
        compaction = plan.get("compaction") if plan["state"] == "running" else None
        for node in () if compaction is None else compaction["nodes"]:
            if node["state"] == "low_space":
                yield Finding(
                    code="compaction_low_space",
                    level="act",
                    node=node["node"],
                    what=f"{told} waits for room on the disk of {names.get(node['node'])}.",
                    do="Free space there.",
                )
