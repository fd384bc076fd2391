"""The commands `ssc protocols` and `ssc table`: options in, one library call, a table out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(ssc: typer.Typer) -> None:
    """Give `ssc` the commands."""
    ssc.command("protocols")(protocols)
    ssc.command("table")(table)


def protocols(
    recipe: Annotated[str, typer.Argument(help="published, full, small, surfaces or tiny.")],
    *,
    real: Annotated[Path, typer.Option("--real", help="A dataset with train and val splits.")],
    synthetic: Annotated[list[Path], typer.Option("--synthetic", help="A generated dataset; repeat it for more.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write; one of such runs goes on.")],
    variant: Annotated[
        list[str] | None,
        typer.Option("--variant", metavar="NAME=DIR", help="A dataset built with one switch more, to compare; repeat."),
    ] = None,
    only: Annotated[
        str, typer.Option("--only", metavar="PATTERN", help="Cells whose protocol/arm/seed matches, as in a shell.")
    ] = "*",
    list_cells: Annotated[bool, typer.Option("--list", help="Print the cells' names and run none.")] = False,
    workers: Annotated[int, typer.Option(min=1, max=256, help="Runs side by side; scores don't depend on it.")] = 1,
    change: Annotated[list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Change a field.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Measure what synthetic data is worth: train every arm on every seed, score held-out real sequences, one table.

    Run it again to go on after a stop; a larger matrix finds the runs it shares. Cells that were not run stay in the
    table, marked so. OUT/table.md, OUT/table.json, OUT/fractions.png, OUT/counts.png.

    \b
    Examples:
      occfactory ssc protocols small --real data/runs/town_ssc --synthetic runs/made --out runs/worth --workers 2
      occfactory ssc protocols small --real data/runs/town_ssc --synthetic runs/made --out runs/worth \\
        --only "zero-shot/*" --set "seeds=[0]"
      occfactory ssc protocols small --real data/runs/town_ssc --synthetic runs/made --variant far=runs/extended \
        --out runs/worth --only "switches/*"
    """
    from flows.ssc_protocol_data import Variant, datasets, variant_of
    from flows.ssc_protocol_recipes import protocol_recipe
    from flows.ssc_protocols import chosen_cells, run_protocols
    from flows.ssc_score_cli import command

    whole = protocol_recipe(recipe, tuple(change or ()))
    made: list[Path | Variant] = [*synthetic, *map(variant_of, variant or ())]
    if list_cells:
        found = chosen_cells(whole, datasets(real, made, out, whole.split), only)
        print("\n".join(cell.name + (f"  ({cell.obstacle})" if cell.obstacle else "") for cell in found))
        return
    faults = run_protocols(whole, real, made, out, only=only, workers=workers, quiet=quiet, command=command())
    table(out)
    if faults:
        typer.echo("\n".join(f"failed: {fault}" for fault in faults), err=True)
        raise typer.Exit(1)


def table(out: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of `ssc protocols`.")]) -> None:
    """Write the table and the plots anew from the runs that are done, also while others are under way.

    \b
    Example:
      occfactory ssc table runs/worth
    """
    from flows.ssc_protocol_report import write_table

    print(write_table(out).read_text(), end="")
