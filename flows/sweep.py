"""Learning rates tried alike: short runs of every stage at each rate, with the same data, order and noise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from flows.generator_recipes import generator_recipe
from flows.generators import train_generator
from pipeline.scene.files import write_json

LOG_EVERY = 10  # steps


def sweep_rates(
    recipes: Sequence[str], root: Path, out: Path, rates: Sequence[float], steps: int
) -> dict[str, dict[str, dict[str, float]]]:
    """recipe -> stage -> rate -> mean loss of the last quarter of `steps`; also OUT/rates.json. Raises InputError."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for recipe in recipes:
        for rate in rates:
            changes = (
                f"*.training.steps={steps}",
                f"*.training.learning_rate={rate}",
                f"*.training.log_every={LOG_EVERY}",
            )
            run = Path(out) / f"{recipe}_{rate:g}"
            train_generator(generator_recipe(recipe, changes), root, run)
            for losses in sorted(run.glob("*/losses.jsonl")):
                table.setdefault(recipe, {}).setdefault(losses.parent.name, {})[f"{rate:g}"] = _last(losses, steps)
    write_json(Path(out) / "rates.json", {"steps": steps, "losses": table})
    return table


def _last(losses: Path, steps: int) -> float:
    rows = [json.loads(line) for line in losses.read_text().splitlines()]
    late = [row["loss"] for row in rows if row["step"] > 0.75 * steps and "loss" in row]
    return sum(late) / len(late)
