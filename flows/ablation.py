"""The paper's ablation (its Table 3) as one run: train every variant alike, draw scenes, measure them in one table.

Variants: composition with blocks of 0.4 m (none: full resolution), 0.8, 1.6 and 3.2 m, and the non-compositional two
stages. What is finished is found again: run it once more to go on after a stop.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from flows.evaluate import EvaluateRecipe, evaluate
from flows.evaluate_report import write_evaluation
from flows.generator_recipes import generator_recipe
from flows.generators import sample_recipe, sample_scenes, train_generator
from pipeline.scene.errors import InputError
from pipeline.scene.files import require_empty

VARIANTS = ("comp_full", "comp_block_08", "comp_d3pm", "comp_block_32", "two_stage")


def run_ablation(
    root: Path,
    out: Path,
    changes: Sequence[str] = (),
    scenes: int = 100,
    *,
    variants: Sequence[str] = VARIANTS,
    encoder: Path | None = None,
    quiet: bool = True,
) -> Path:
    """OUT/<variant>/ (training), OUT/scenes/<variant>/ and the table in OUT/table; its path.

    changes: "path=value" for every variant, such as "*.training.steps=500". Raises InputError, JobError.
    """
    table = Path(out) / "table"
    require_empty(table)
    folders = []
    for name in variants:
        if not quiet:
            print(f"{name}: training", file=sys.stderr)
        weights = train_generator(generator_recipe(name, tuple(changes)), root, Path(out) / name)
        folders.append(sample_scenes(sample_recipe(weights, scenes), Path(out) / "scenes" / name, quiet=quiet))
    recipe = EvaluateRecipe(real=root, generated=tuple(folders), names=tuple(variants), encoder=encoder)
    command = [
        "occfactory",
        "ablation",
        str(root),
        "--out",
        str(out),
        "-n",
        str(scenes),
        "--variants",
        ",".join(variants),
    ]
    command += [] if encoder is None else ["--encoder", str(encoder)]
    command += [word for change in changes for word in ("--set", change)]
    write_evaluation(evaluate(recipe, 1, quiet), table, shlex.join(command))
    return table


def variants_of(names: str) -> tuple[str, ...]:
    """Variants from their names with commas between. Raises InputError."""
    chosen = tuple(names.split(","))
    unknown = [name for name in chosen if name not in VARIANTS]
    if unknown:
        raise InputError("--variants", f"some of {', '.join(VARIANTS)}", unknown[0])
    return chosen
