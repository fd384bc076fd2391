"""What Prefect's pages show of a build: progress that moves while it runs, then the report's tables.

Importing this module imports Prefect; flows.quiet must have set the environment before. Pictures stay in the report: an
artifact can hold a picture's address only, and a report lies on a disk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE

from flows.report import TABLES
from flows.shards import Plan, Result
from pipeline.datasets.checked_files import read_json
from pipeline.report.report import FOLDER, PAGE

LARGEST = 1 << 26  # bytes
MOVES = 50  # updates of the progress artifact a build, at most: each is a request


class BuildProgress:
    """A progress artifact of the flow run that it is made in. Call it with every Result."""

    def __init__(self, plan: Plan, shards: int | None = None):
        self.jobs = len(plan.stages) * (plan.shards if shards is None else shards)
        self.ended, self.told = 0, 0
        about = f"{plan.name}: {', '.join(stage.name for stage in plan.stages)}"
        found = create_progress_artifact(0.0, key=key_of(f"{plan.name} progress"), description=about)
        assert isinstance(found, UUID)
        self.artifact = found

    def __call__(self, result: Result) -> None:
        self.ended += 1
        reached = MOVES * self.ended // max(self.jobs, 1)
        if reached > self.told or self.ended == self.jobs:
            self.told = reached
            update_progress_artifact(self.artifact, 100 * self.ended / max(self.jobs, 1))


def report_flow(directory: Path, write: Callable[[], Path]) -> None:
    """Write a build's report as a flow of its own, whose artifacts carry the report's tables."""

    @task(name="report", cache_policy=NO_CACHE, persist_result=False)
    def report() -> str:
        return str(write())

    @flow(name="occfactory-report", validate_parameters=False, persist_result=False)
    def occfactory_report(out: str) -> None:
        report()
        publish_tables(Path(out))

    occfactory_report(str(directory))


def publish_tables(directory: Path) -> None:
    """Artifacts of the flow run that this is called in: the report in Markdown, and each of its tables."""
    told = read_json(directory / FOLDER / TABLES, "a report's tables", LARGEST)
    name = str(told["name"])
    create_markdown_artifact(markdown(told, directory), key=key_of(f"{name} report"), description=told["title"])
    for table in told["tables"]:
        rows = [dict(zip(_heads(table["heads"]), row, strict=True)) for row in table["rows"]]
        create_table_artifact(rows, key=key_of(f"{name} {table['title']}"), description=table["note"])


def markdown(told: dict[str, Any], directory: Path) -> str:
    """The report without its pictures, and where it lies."""
    parts = [f"# {told['title']}", told["subtitle"], f"`{directory / FOLDER / PAGE}`"]
    parts += ["\n".join(f"- **{figure}** {what}" for figure, what in told["tiles"])]
    parts += ["\n".join(f"- {fact}: {value}" for fact, value in told["facts"])]
    for table in told["tables"]:
        heads = _heads(table["heads"])
        lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *table["rows"]]
        rows = "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)
        parts += [f"## {table['title']}", rows, table["note"]]
    return "\n\n".join(part for part in parts if part) + "\n"


def _heads(heads: Sequence[str]) -> list[str]:
    """Column names that are all different and not empty."""
    return [head or f"column {number}" for number, head in enumerate(heads, 1)]


def key_of(text: str) -> str:
    """Words as an artifact's key: lower-case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", f"occfactory {text}".lower()).strip("-")
