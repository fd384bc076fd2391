"""The flow that deployments run: one version of a build. Its parameters' schema is the form in Prefect's UI.

Importing this module imports Prefect; flows.quiet must have set the environment before.
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from flows.recipes import BuildRecipe
from flows.versions import build_version


@flow(name="occfactory-build", flow_run_name="{recipe.name}", persist_result=False)
def scheduled_build(recipe: BuildRecipe, out: Path, keep: int = 3, new_seed: bool = True, workers: int = 1) -> str:
    """Build the next version in `out`, resuming one that was stopped; the version's folder."""
    return str(build_version(recipe, out, keep, new_seed, "prefect", workers))
