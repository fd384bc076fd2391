"""`occfactory serve`: builds on a schedule, from a TOML file of deployments, through Prefect's scheduler.

A schedule needs a Prefect server (the ephemeral API fires none): the one that PREFECT_API_URL names, or one of our own
on this machine, in our private home, that ends with us.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, field_validator, model_validator

from flows.jobs import JobError
from flows.quiet import make_prefect_home
from flows.recipes import BuildRecipe, Config, GeneratorSource, SplitSource, load_recipe, validated
from pipeline.scene.errors import InputError

START_S = 180  # within which a server must answer


class ScheduledBuild(Config):
    """One [[build]] of a schedule file."""

    name: str = Field(pattern=r"^[a-z0-9_-]{1,64}$")  # of the deployment
    recipe: str  # its name, as `occfactory build` takes it
    root: Path | None = None  # the dataset or weights it reads, if it reads one
    set: tuple[str, ...] = ()  # changes such as "samples=100"
    out: Path  # folder of versions
    cron: str | None = None  # five fields; this or interval_s
    interval_s: float | None = Field(None, ge=10)
    timezone: str = "UTC"  # of the cron fields
    keep: int = Field(3, ge=1)  # finished versions
    new_seed: bool = True  # version n has the recipe's seed plus n
    workers: int = Field(1, ge=1, le=256)

    @field_validator("timezone")
    @classmethod
    def _is_known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("must be a time zone such as Europe/Berlin") from None
        return name

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, cron: str | None) -> str | None:
        if cron is not None:
            from prefect.client.schemas.schedules import CronSchedule

            try:
                CronSchedule(cron=cron)
            except ValueError:
                raise ValueError("must be five cron fields, such as 0 3 * * *") from None
        return cron

    @model_validator(mode="after")
    def _one_schedule(self) -> Self:
        if (self.cron is None) == (self.interval_s is None):
            raise ValueError("give either cron or interval_s")
        return self


def read_schedule(path: Path) -> list[ScheduledBuild]:
    """The builds of a schedule file, their recipes loaded once so that faults show now. Raises InputError."""
    try:
        table = tomllib.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError(path, "a TOML file with [[build]] tables", str(error)) from None
    rows = table.get("build")
    if not isinstance(rows, list) or not rows or set(table) != {"build"}:
        raise InputError(path, "[[build]] tables and nothing else", ", ".join(sorted(table)) or "nothing")
    builds = [validated(ScheduledBuild, row) for row in rows]
    names = [build.name for build in builds]
    if len(set(names)) != len(names):
        raise InputError(path, "builds of different names", ", ".join(names))
    for build in builds:
        load_recipe(build.recipe, build.root, build.set)
    return builds


def parameters_of(build: ScheduledBuild) -> dict[str, Any]:
    """What the deployed flow is called with: the recipe whole, as the Prefect UI's form shows it."""
    recipe = load_recipe(build.recipe, build.root, build.set)
    return {
        "recipe": recipe_parameters(recipe),
        "out": str(build.out.resolve()),
        "keep": build.keep,
        "new_seed": build.new_seed,
        "workers": build.workers,
    }


def recipe_parameters(recipe: BuildRecipe) -> dict[str, Any]:
    """A recipe in JSON with the path it reads from, which its digest leaves out."""
    table = recipe.model_dump(mode="json")
    if isinstance(recipe.source, SplitSource):
        table["source"]["root"] = str(recipe.source.root.resolve())
    if isinstance(recipe.source, GeneratorSource):
        table["source"]["weights"] = str(recipe.source.weights.resolve())
    return table


def serve_builds(builds: Sequence[ScheduledBuild], port: int = 4200) -> None:
    """Register the builds as deployments and run them when they are due, until stopped. Raises InputError, JobError."""
    with prefect_server(port) as url:
        print(
            f"Prefect: {url.removesuffix('/api')}; {len(builds)} deployments; Ctrl-C ends", file=sys.stderr, flush=True
        )
        from prefect import serve

        serve(*(_deployment(build) for build in builds), print_starting_message=False)


def _deployment(build: ScheduledBuild) -> Any:
    from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
    from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
    from prefect.types.entrypoint import EntrypointType

    from flows.scheduled import scheduled_build

    schedule: Any = (
        CronSchedule(cron=build.cron, timezone=build.timezone)
        if build.cron is not None
        else IntervalSchedule(interval=timedelta(seconds=build.interval_s or 0), timezone=build.timezone)
    )
    return scheduled_build.to_deployment(
        name=build.name,
        schedule=schedule,
        parameters=parameters_of(build),
        description=f"occfactory build {build.recipe}: versions in {build.out}, the last {build.keep} kept",
        entrypoint_type=EntrypointType.MODULE_PATH,
        concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW),
    )


@contextlib.contextmanager
def prefect_server(port: int) -> Iterator[str]:
    """The API's address: PREFECT_API_URL's, or a server of our own while the context lasts. Raises JobError."""
    if "PREFECT_API_URL" in os.environ:
        yield os.environ["PREFECT_API_URL"]
        return
    make_prefect_home()
    url = f"http://127.0.0.1:{port}/api"
    if _answers(url):
        raise InputError(
            "--port", "a free port", f"{port}, where something answers", "or set PREFECT_API_URL to use it"
        )
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await(server, url)
        os.environ["PREFECT_API_URL"] = url
        yield url
    finally:
        os.environ.pop("PREFECT_API_URL", None)
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


def _await(server: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_S
    while not _answers(url):
        if server.poll() is not None or time.monotonic() > deadline:
            raise JobError(f"Prefect's server did not start at {url}; see `prefect server start`")
        time.sleep(0.5)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False
