"""What synthetic data is worth, as a matrix of training runs: which there are, and what each trains on.

A cell is a place in the table: a protocol, an arm and a seed. Several cells may need the same run (real data alone is
an arm of two protocols), which is trained once: a run is known by the digest of everything its weights follow from.
All arms train alike and equally long, on draws from real and synthetic frames in fixed shares. Synthetic subsets are
nested, and so are real ones (samples.chosen_frames).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.learning.config import TrainConfig
from pipeline.learning.fields import unwritten
from pipeline.scene.errors import InputError
from pipeline.scene.files import digest_of
from ssc_eval.losses import LossWeights
from ssc_eval.monoscene import MonoSceneConfig
from ssc_eval.samples import SampleConfig, Source
from ssc_eval.training import SscConfig
from ssc_eval.views import ImageKind

Protocol = Literal["real", "zero-shot", "fractions", "finetune", "counts", "floors", "switches"]
PROTOCOLS: tuple[Protocol, ...] = ("real", "zero-shot", "fractions", "finetune", "counts", "floors", "switches")
SwitchName = Literal["balanced", "accepted", "adapt"]
Share = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0)]
VARIANT_NAME = r"^[A-Za-z0-9_.-]{1,40}$"
VariantName = Annotated[str, Field(pattern=VARIANT_NAME)]
_HOW_ONLY = {"device", "workers", "log_every", "checkpoint_every", "validate_every", "keep"}  # don't touch the weights


class Frozen(BaseModel):
    """Frozen, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Switches(Frozen):
    """What may make synthetic data worth more; each concerns arms with synthetic data (and `adapt` a control without).

    What a build decides (its recipe's masks, source.extend_m, views.real and jitter) is compared by a variant: another
    build beside the first (Datasets.variants).
    """

    balanced: bool = False  # synthetic frames with classes that are in few frames are drawn more often
    accepted: bool = False  # only synthetic frames that the manifest marks as accepted by the structure check
    adapt: bool = False  # batch norms' statistics taken anew on unlabelled real training images

    @property
    def names(self) -> tuple[str, ...]:
        """Those that are on."""
        return tuple(name for name, on in self if on)


class ProtocolRecipe(Frozen):
    """The whole matrix."""

    network: MonoSceneConfig
    samples: SampleConfig
    losses: LossWeights = unwritten(LossWeights())
    training: TrainConfig  # of every arm; in steps, so that all arms have as many. Its seed is replaced
    surfaces: TrainConfig | None = unwritten(None)  # before it, of the 2D half alone (network.depth_bins)
    finetune: TrainConfig | None = None  # on real data, after synthetic pretraining; None: as `training`
    protocols: tuple[Protocol, ...] = PROTOCOLS
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2)  # of weights, order and subsets
    fractions: tuple[Share, ...] = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0)  # of the real training frames
    counts: tuple[Annotated[int, Field(ge=1)], ...] = (10, 30, 100, 300, 1000, 3000)  # synthetic frames; and all
    real_share: Annotated[float, Field(gt=0, lt=1)] = 0.5  # of a batch's draws, where real and synthetic are mixed
    split: str = "val"  # of the real root: held-out sequences, scored
    frames: Annotated[int, Field(ge=1)] | None = None  # a fixed choice of so many of them; None: all
    norm_frames: Annotated[int, Field(ge=0)] = 0  # draws that give the batch norms' final statistics; 0: running ones
    adapt_frames: Annotated[int, Field(ge=1)] = 64  # real images that `adapt` looks at
    switches: Switches = Switches()  # on in every arm with synthetic data
    tried: tuple[SwitchName, ...] = ("balanced", "accepted", "adapt")  # each alone, in protocol `switches`

    @model_validator(mode="after")
    def _equal_iterations(self) -> Self:
        for training in (self.training, self.finetune or self.training, self.surfaces or self.training):
            milestones = training.schedule.kind == "multistep" and training.schedule.unit != "step"
            if training.steps is None or milestones:
                raise ValueError("training and its milestones must be in steps, or arms would differ in length")
        for name in ("seeds", "fractions", "counts"):
            if len(set(getattr(self, name))) != len(getattr(self, name)):
                raise ValueError(f"{name} must differ from each other")
        return self


class Data(Frozen):
    """A dataset that runs draw from. renders: "images" where its images are shaded renders themselves, "beside" where
    it has both, "" where it has none; accepted: how many frames its manifest marks as accepted, None without marks."""

    root: Path
    digest: str  # of its files, not of where it lies
    frames: int  # labelled ones in split train
    renders: Literal["images", "beside", ""] = ""
    accepted: int | None = None
    accepted_root: Path | None = None  # those alone, as a dataset


class Datasets(Frozen):
    """One real dataset, with held-out sequences, and one or more synthetic ones.

    variants: by name, synthetic datasets built with one switch more, each used alone in place of `synthetic`.
    """

    real: Data
    synthetic: Annotated[tuple[Data, ...], Field(min_length=1)]
    variants: Mapping[VariantName, Data] = {}

    def pool(self, variant: str = "") -> tuple[Data, ...]:
        """The synthetic datasets, or a variant's."""
        return (self.variants[variant],) if variant else self.synthetic

    def usable(self, accepted: bool, variant: str = "") -> tuple[int, ...]:
        """Synthetic frames by dataset. One without marks gives none to the accepted ones."""
        return tuple((data.accepted or 0) if accepted else data.frames for data in self.pool(variant))


class Run(Frozen):
    """What is trained (or counted, for a prior), as far as a seed and the matrix's recipe leave it open."""

    how: Literal["trained", "finetuned", "prior"] = "trained"  # finetuned: on real data, from synthetic's weights
    real: Annotated[float, Field(ge=0, le=1)] = 0.0  # share of the real training frames
    synthetic: Annotated[int, Field(ge=0)] = 0  # frames
    image: ImageKind = "image"  # of the synthetic frames
    switches: Switches = Switches()
    variant: str = ""  # of the synthetic datasets; "": the datasets themselves
    seed: Seed = 0

    @property
    def parent(self) -> Run | None:
        """The run whose weights this one begins with, or only adapts."""
        plain = self.switches.model_copy(update={"adapt": False})
        if self.switches.adapt:
            return self.model_copy(update={"switches": plain})
        if self.how == "finetuned":
            return self.model_copy(update={"how": "trained", "real": 0.0, "switches": plain})
        return None

    @property
    def arm(self) -> str:
        """Its name without the seed, such as "real 5 % + synthetic"."""
        real = f"real {100 * self.real:g} %" if self.real else ""
        made = ("renders" if self.image == "render" else "synthetic") if self.synthetic else ""
        made += f" {self.variant}" if self.variant else ""
        switched = "".join(f", {name}" for name in self.switches.names)
        real, made = (real, made + switched) if made else (real + switched, "")
        if self.how == "prior":
            return f"constant prior of {'real' if self.real else 'synthetic'}"
        return (" then " if self.how == "finetuned" else " + ").join(
            part for part in ((made, real) if self.how == "finetuned" else (real, made)) if part
        )


class Cell(Frozen):
    """A place in the table. obstacle: why it can't be run on these datasets (nor be `planned`), or ""."""

    protocol: Protocol
    run: Run
    obstacle: str = ""

    @property
    def arm(self) -> str:
        """The run's arm, with the number of frames where the protocol is about it."""
        return f"{self.run.arm} {self.run.synthetic}" if self.protocol == "counts" else self.run.arm

    @property
    def name(self) -> str:
        """What `--only` matches: protocol/arm/seed, in words without spaces."""
        arm = self.arm.replace(" %", "").replace(" + ", "+").replace(", ", "+").replace(" ", "_")
        return f"{self.protocol}/{arm}/{self.run.seed}"


def cells(recipe: ProtocolRecipe, data: Datasets) -> tuple[Cell, ...]:
    """All cells in the table's order: protocol, arm, seed. Raises InputError if `accepted` is on without any marks."""
    if recipe.switches.accepted and not sum(data.usable(True)):
        raise InputError("switches.accepted", "frames marked as accepted in a manifest", "none", "turn it off")
    return tuple(cell for protocol in recipe.protocols for cell in _ARMS[protocol](recipe, data))


def _real(recipe: ProtocolRecipe, data: Datasets) -> Iterator[Cell]:
    for seed in recipe.seeds:
        yield Cell(protocol="real", run=Run(real=1.0, seed=seed))


def _zero_shot(recipe: ProtocolRecipe, data: Datasets) -> Iterator[Cell]:
    for seed in recipe.seeds:
        yield Cell(protocol="zero-shot", run=_synthetic(recipe, data, seed))


def _fractions(recipe: ProtocolRecipe, data: Datasets) -> Iterator[Cell]:
    for fraction in recipe.fractions:
        for seed in recipe.seeds:
            yield Cell(protocol="fractions", run=Run(real=fraction, seed=seed))
        for seed in recipe.seeds:
            yield Cell(protocol="fractions", run=_synthetic(recipe, data, seed, real=fraction))


def _finetune(recipe: ProtocolRecipe, data: Datasets) -> Iterator[Cell]:
    for fraction in recipe.fractions:
        for seed in recipe.seeds:
            run = _synthetic(recipe, data, seed, real=fraction, how="finetuned")
            run = run.model_copy(update={"switches": run.switches.model_copy(update={"adapt": False})})
            yield Cell(protocol="finetune", run=run)  # its statistics are real ones already


def _counts(recipe: ProtocolRecipe, data: Datasets) -> Iterator[Cell]:
    whole = sum(data.usable(recipe.switches.accepted))
    for count in [*sorted(count for count in recipe.counts if count < whole), whole]:
        for seed in recipe.seeds:
            yield Cell(protocol="counts", run=_synthetic(recipe, data, seed, synthetic=count))


def _floors(recipe: ProtocolRecipe, data: Datasets) -> Iterator[Cell]:
    yield Cell(protocol="floors", run=Run(how="prior", real=1.0))
    yield Cell(protocol="floors", run=Run(how="prior", synthetic=sum(data.usable(False))))
    without = not all(found.renders for found in data.synthetic)
    for seed in recipe.seeds:
        run = _synthetic(recipe, data, seed, image="render")
        yield Cell(protocol="floors", run=run, obstacle="no renders beside the images" if without else "")


def _switches(recipe: ProtocolRecipe, data: Datasets) -> Iterator[Cell]:
    for name in recipe.tried:
        without = name == "accepted" and not sum(data.usable(True))
        switches = recipe.switches.model_copy(update={name: True})
        fields = {"synthetic": sum(data.usable(False))} if without else {}  # for its name
        for seed in recipe.seeds:
            obstacle = "no frame is marked by the structure check" if without else ""
            run = _synthetic(recipe, data, seed, switches=switches, **fields)
            yield Cell(protocol="switches", run=run, obstacle=obstacle)
    if "adapt" in recipe.tried:  # what it does to a network that has seen nothing but real images
        for seed in recipe.seeds:
            yield Cell(protocol="switches", run=Run(real=1.0, switches=Switches(adapt=True), seed=seed))
    yield from _variants(recipe, data)


def _variants(recipe: ProtocolRecipe, data: Datasets) -> Iterator[Cell]:
    """As many frames of each as there are of the plain synthetic datasets, if it has them."""
    accepted = recipe.switches.accepted
    for name in data.variants:
        count = min(sum(data.usable(accepted, name)), sum(data.usable(accepted)))
        obstacle = "" if count else "no frame is marked by the structure check"
        fields = {"synthetic": count or data.variants[name].frames, "variant": name}
        for seed in recipe.seeds:
            yield Cell(protocol="switches", run=_synthetic(recipe, data, seed, **fields), obstacle=obstacle)


_ARMS = {
    "real": _real,
    "zero-shot": _zero_shot,
    "fractions": _fractions,
    "finetune": _finetune,
    "counts": _counts,
    "floors": _floors,
    "switches": _switches,
}


def _synthetic(recipe: ProtocolRecipe, data: Datasets, seed: int, **fields: Any) -> Run:
    """A run with all usable synthetic frames, unless `fields` say otherwise."""
    switches = fields.pop("switches", recipe.switches)
    whole = sum(data.usable(switches.accepted))
    return Run(**{"synthetic": whole, "switches": switches, "seed": seed, **fields})


class Planned(NamedTuple):
    """A run that can be trained: its config (start is left open), what it begins with, and its digest."""

    run: Run
    config: SscConfig
    adapt: Source | None
    parent: str | None
    digest: str


def planned(recipe: ProtocolRecipe, data: Datasets, run: Run) -> Planned:
    """A run as training takes it. For a prior, whose frames are counted, `config.sources` alone matter."""
    training = (recipe.finetune if run.how == "finetuned" else None) or recipe.training
    config = SscConfig(
        network=recipe.network,
        samples=recipe.samples,
        training=training.model_copy(update={"seed": run.seed}),
        sources=sources(recipe, data, run),
        losses=recipe.losses,
        seed=run.seed,
        norm_frames=recipe.norm_frames,
        surfaces=None if run.how == "finetuned" else recipe.surfaces,  # synthetic data have taught those
    )
    adapt = Source(root=data.real.root, frames=recipe.adapt_frames) if run.switches.adapt else None
    parent = None if run.parent is None else planned(recipe, data, run.parent).digest
    return Planned(run, config, adapt, parent, _digest(recipe, data, run, (config, adapt, parent)))


def sources(recipe: ProtocolRecipe, data: Datasets, run: Run) -> tuple[Source, ...]:
    """The datasets that a run draws from, and their shares."""
    mixed = bool(run.real and run.synthetic) and run.how != "finetuned"
    found = []
    if run.real:
        found.append(Source(root=data.real.root, fraction=run.real, weight=recipe.real_share if mixed else 1.0))
    if run.synthetic and run.how != "finetuned":
        counts = nested_counts(data.usable(run.switches.accepted, run.variant), run.synthetic)
        for made, count in zip(data.pool(run.variant), counts, strict=True):
            weight = (1 - recipe.real_share if mixed else 1.0) * count / run.synthetic
            root = made.accepted_root if run.switches.accepted else made.root
            if count and root is not None:
                image: ImageKind = "image" if made.renders == "images" else run.image
                balanced = run.switches.balanced
                found.append(Source(root=root, frames=count, weight=weight, image=image, balanced=balanced))
    return tuple(found)


def nested_counts(available: Sequence[int], wanted: int) -> tuple[int, ...]:
    """`wanted` frames of several datasets in proportion, such that fewer are always a part of more.

    Frames are handed out one by one, each to the dataset that lags most behind its share. Raises InputError.
    """
    whole = sum(available)
    if wanted > whole:
        raise InputError("synthetic frames", f"at most {whole}", str(wanted))
    taken = [0] * len(available)
    for number in range(1, wanted + 1):
        open_ = [k for k, count in enumerate(available) if taken[k] < count]
        taken[max(open_, key=lambda k: available[k] * number - taken[k] * whole)] += 1
    return tuple(taken)


def _digest(
    recipe: ProtocolRecipe, data: Datasets, run: Run, parts: tuple[SscConfig, Source | None, str | None]
) -> str:
    """SHA-256 of all that a run's scores follow from: configs with datasets' digests for paths."""
    config, adapt, parent = parts
    names = _contents(data)
    table = config.model_dump(mode="json", exclude={"start", "validation", "adapt", "training"})
    table["training"] = config.training.model_dump(mode="json", exclude=_HOW_ONLY)
    if config.surfaces is not None:
        table["surfaces"] = config.surfaces.model_dump(mode="json", exclude=_HOW_ONLY)
    for source, row in zip(config.sources, table["sources"], strict=True):
        row["root"] = names[source.root]
    adapted = None if adapt is None else {**adapt.model_dump(mode="json"), "root": names[adapt.root]}
    scored = [data.real.digest, recipe.split, recipe.frames]
    return digest_of([run.how, table, adapted, parent, scored])


def _contents(data: Datasets) -> Mapping[Path, str]:
    found = {}
    for each in (data.real, *data.synthetic, *data.variants.values()):
        found[each.root] = each.digest
        if each.accepted_root is not None:
            found[each.accepted_root] = f"{each.digest} accepted"
    return found
