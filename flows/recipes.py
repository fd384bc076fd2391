"""Recipes: functions that return one whole, frozen run config. Every recipe has a tiny CPU twin.

A recipe's digest is its identity: it holds no path of a machine and no number of workers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flows.changes import apply_changes
from flows.view_recipe import ViewConfig
from pipeline.images.config import ControlConfig, SynthesisConfig
from pipeline.images.prompts import PromptConfig
from pipeline.learning.fields import unwritten
from pipeline.scene.errors import InputError
from pipeline.scene.files import data_path, digest_of, sha256_file
from pipeline.scene.grid import COMPARISON_GRID, DEFAULT_GRID, VoxelGrid


class Config(BaseModel):
    """Frozen, strict about unknown fields, and known by a digest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def digest(self) -> str:
        """SHA-256 of the config in canonical JSON."""
        return digest_of(self.model_dump(mode="json"))


AnyModel = TypeVar("AnyModel", bound=BaseModel)


class GridConfig(Config):
    """A VoxelGrid as configuration."""

    shape: tuple[int, int, int] = DEFAULT_GRID.shape  # voxels along X, Y, Z
    voxel_size_m: float = Field(DEFAULT_GRID.voxel_size_m, gt=0)  # edge of a voxel [m]
    origin_m: tuple[float, float, float] = DEFAULT_GRID.origin_m  # lowest corner in the vehicle frame [m]

    def grid(self) -> VoxelGrid:
        return VoxelGrid(self.shape, self.voxel_size_m, self.origin_m)


def _extension() -> Any:
    """Metres ahead and to both sides of the grid."""
    return unwritten(0.0, ge=0, le=100)


class TownSource(Config):
    """Scenes of the embedded world's training split: sample i is frame (i mod frames) of sequence (i div frames)."""

    kind: Literal["town"] = "town"
    frames_per_sequence: int = Field(4, ge=1)  # samples drawn from one street
    frame_step: int = Field(10, ge=1)  # scans between two samples (0.1 s each)
    grid: GridConfig = GridConfig()
    mask_poses: int = Field(12, ge=1)  # poses of the drive from which invalid voxels are seen
    mask_step: int = Field(5, ge=1)  # scans between those poses
    extend_m: float = _extension()  # so far the street goes on beyond the grid before it is rendered


class SplitSource(Config):
    """Scenes of a SemanticKITTI-layout root, frame by frame in file order."""

    kind: Literal["split"] = "split"
    root: Path = Field(exclude=True)  # where it lies; not part of the digest (each sample records its source's SHA-256)
    split: str = "train"  # train, val, or another split of the root


class GeneratorSource(Config):
    """Scenes of a generator: drawn on its own grid, or tiled onto a larger one from overlapping windows."""

    kind: Literal["generator"] = "generator"
    weights: Path = Field(exclude=True)  # the folder; not part of the digest
    weights_digest: str  # SHA-256 of its card, which names every file's own
    grid: GridConfig = GridConfig()  # of the scenes
    overlap_m: float = Field(3.2, gt=0)  # that neighbouring windows share [m]
    steps: int | None = Field(None, ge=1)  # of sampling, at every stage; None: the weights' own
    batch: int | None = Field(None, ge=1)  # scenes at once; None likewise
    threads: int | None = Field(None, ge=1)  # CPU threads; None likewise
    extend_m: float = _extension()  # so far scenes are outpainted before they are rendered: costs windows


class RenderImages(Config):
    """A view's image is its shaded render."""

    kind: Literal["render"] = "render"


class ControlNetImages(Config):
    """A diffusion pipeline draws a view's image, led by its render; a critic rejects what lost the structure.

    Paths are no part of the digest, what lies there is. flows/image_weights.py makes these fields from folders.
    """

    kind: Literal["controlnet"] = "controlnet"
    weights: Path = Field(exclude=True)  # a diffusers pipeline's folder
    controlnet: Path | None = Field(None, exclude=True)  # another ControlNet's folder than the pipeline's own
    critic: Path | None = Field(None, exclude=True)  # a folder of `images train-critic`; None: nothing is checked
    weights_digest: str  # SHA-256 of the contents of pipeline and ControlNet
    critic_digest: str | None = None  # SHA-256 of the critic's card and thresholds
    control: ControlConfig = ControlConfig()
    prompt: PromptConfig = PromptConfig()
    synthesis: SynthesisConfig = SynthesisConfig()
    redraws: int = Field(3, ge=0)  # draws after a rejected first one, each with a seed of its own
    min_share: float = Field(0.002, ge=0, le=1)  # classes that cover less of the image aren't judged
    slack: float = Field(0.0, ge=0, lt=1)  # by this part an image may miss the critic's thresholds
    rejected: Literal["drop", "keep"] = "drop"  # samples none of whose draws was accepted: left out, or only marked


class SscStep(Config):
    """A network of semantic scene completion, trained on the finished build and tested on scenes it hasn't seen."""

    recipe: str = "small"  # of flows/ssc_recipes.py
    steps: int | None = Field(None, ge=1)  # updates; None: the recipe's
    changes: tuple[str, ...] = ()  # of that recipe, such as "training.torch_threads=2"
    seed: int = Field(0, ge=0)  # of weights, order and augmentation
    real: Path | None = Field(None, exclude=True)  # a root of the same grid and classes to test on as well
    real_split: str = "val"  # its split
    adapt: int = Field(64, ge=0)  # images of its split train, labels unused, to take batch norms anew from; 0: none
    frames: int | None = Field(None, ge=1)  # tested of each root, at most; None: all
    pictures: int = Field(4, ge=0)  # frames of each root that the report shows


class BuildRecipe(Config):
    """One dataset build. What comes after the dataset (REPORTED) is no part of its digest."""

    REPORTED: ClassVar[frozenset[str]] = frozenset({"ssc", "gallery_samples"})

    name: str = Field(pattern=r"^[a-z0-9_]{1,64}$")
    description: str = ""
    seed: int = Field(0, ge=0)  # the seed tree's root
    samples: int | None = Field(None, ge=1)  # None: every frame of the source
    shard_samples: int = Field(8, ge=1)  # samples a shard, the unit of work
    sequences: int = Field(10, ge=1)  # folders that generated samples fill; each has its own camera
    threads: int = Field(1, ge=1)  # threads a worker
    source: Annotated[TownSource | SplitSource | GeneratorSource, Field(discriminator="kind")]
    # invalid voxels simulated along a drive, as recorded ground truth has them; or every voxel of a scene known
    masks: Literal["simulated", "none"] = unwritten("simulated")
    views: ViewConfig = ViewConfig()
    images: Annotated[RenderImages | ControlNetImages, Field(discriminator="kind")] = RenderImages()
    images_per_scene: int = Field(1, ge=1)  # samples that show one scene, with other prompts and noise
    gallery_samples: int = Field(8, ge=0)  # samples shown in the report, evenly spaced, uncurated
    monoscene_labels: bool = False  # also labels/XX/NNNNNN_1_1.npy and _1_8.npy, as MonoScene's loader wants
    val_share: float = Field(0.0, ge=0, lt=1)  # of the scenes, in sequences of their own; 0: none are held out
    test_share: float = Field(0.0, ge=0, lt=1)  # likewise
    ssc: SscStep | None = None  # what a network learns from the dataset, told in the report

    def digest(self) -> str:
        """SHA-256 of all that shapes the dataset, in canonical JSON."""
        return digest_of(self.model_dump(mode="json", exclude=set(self.REPORTED)))

    @model_validator(mode="after")
    def _scenes_are_held_out(self) -> Self:
        if (self.val_share or self.test_share) and isinstance(self.source, SplitSource):
            raise ValueError("a split's frames stay in their split; val_share and test_share are for generated scenes")
        if self.ssc is not None and self.ssc.real is None and not (self.val_share or self.test_share):
            raise ValueError("ssc needs scenes to test on: val_share=0.2, or ssc.real=ROOT")
        return self

    @model_validator(mode="after")
    def _recorded_frames_keep_their_names(self) -> Self:
        if self.images_per_scene > 1 and isinstance(self.source, SplitSource):
            raise ValueError("a split's frames have one image each; images_per_scene is for generated scenes")
        if self.masks == "none" and isinstance(self.source, SplitSource):
            raise ValueError("a split's frames keep their own masks; masks=none is for generated scenes")
        return self


class TownRecipe(Config):
    """A SemanticKITTI-layout root of the embedded world: what stands in for recorded data."""

    frames: int = Field(ge=3)  # labelled frames in all
    seed: int = Field(0, ge=0)  # the seed tree's root
    sequence_frames: int = Field(20, ge=1)  # labelled frames of one drive; a drive is one shard
    frame_step: int = Field(5, ge=1)  # scans between labelled frames (0.1 s each), as SemanticKITTI
    val_share: float = Field(0.2, gt=0, lt=1)  # of the drives
    test_share: float = Field(0.1, ge=0, lt=1)  # of the drives; their frames have .bin and images only
    grid: GridConfig = GridConfig()
    width_px: int = Field(1220, ge=16, le=8192)  # photographs
    height_px: int = Field(370, ge=16, le=8192)
    truth: Literal["surface", "scans"] = "surface"  # the geometry's shell at the instant, or 71 aggregated scans
    poses: int = Field(14, ge=1)  # poses of the drive from which voxels are seen or not
    pose_step: int = Field(5, ge=1)  # scans between those poses: 14 x 5 = SemanticKITTI's 70
    scans: bool = False  # also velodyne/ and labels/ of every scan
    photographs: bool = True  # image_2/; without them a root is for scene generators alone, and made sooner
    threads: int = Field(1, ge=1)  # threads a worker


class RenderRecipe(Config):
    """Views of a split's frames through their own calibration."""

    source: SplitSource
    frames: int | None = Field(None, ge=1)  # the first ones; None: all
    shard_frames: int = Field(20, ge=1)  # frames a shard
    threads: int = Field(1, ge=1)  # threads a worker


class ConvertRecipe(Config):
    """A dataset in another format."""

    root: Path = Field(exclude=True)  # the source; not part of the digest
    to: str  # the target format's name
    split: str | None = None  # this split alone; None: all
    shard_frames: int = Field(50, ge=1)  # frames a shard
    threads: int = Field(1, ge=1)  # threads a worker


class VoxelizeRecipe(Config):
    """Ground truth from a root's labelled scans and poses; the defaults are SemanticKITTI's."""

    root: Path = Field(exclude=True)  # where the scans lie; not part of the digest
    sequences: tuple[str, ...] = ()  # these alone; empty: every one with velodyne/ and labels/
    grid: GridConfig = GridConfig(shape=(256, 256, 32), voxel_size_m=0.2)
    taxonomy: str = "semantic_kitti"  # a shipped one by name, or a .toml file
    scans_ahead: int = Field(70, ge=0)  # later scans that join the current one
    stride: int = Field(5, ge=1)  # scans from frame to frame
    nearest_m: float = Field(2.5, ge=0)  # least distance of a labelled point from its sensor [m]
    farthest_m: float = Field(70.0, gt=0)  # greatest [m]
    shard_frames: int = Field(20, ge=1)  # frames a shard
    threads: int = Field(1, ge=1)  # threads a worker


def town_demo() -> BuildRecipe:
    """48 streets of the embedded world at 0.4 m, KITTI's camera at native size: the demo."""
    return BuildRecipe(name="town_demo", samples=48, shard_samples=8, source=TownSource(frames_per_sequence=2))


def town_tiny() -> BuildRecipe:
    """6 samples at a third of the image size: the whole road in seconds, for tests."""
    return BuildRecipe(
        name="town_tiny",
        samples=6,
        shard_samples=2,
        sequences=2,
        source=TownSource(frames_per_sequence=2, mask_poses=3),
        views=ViewConfig(width_px=384, height_px=128),
        gallery_samples=6,
    )


def semantic_kitti(root: Path) -> BuildRecipe:
    """Every training frame of a SemanticKITTI-layout ROOT, rendered through its own calibration."""
    source = SplitSource(root=root)
    views = ViewConfig(calibrated=True, jitter_m=0, jitter_deg=0)
    return BuildRecipe(name="semantic_kitti", source=source, views=views)


def generated(root: Path) -> BuildRecipe:
    """48 scenes of the generator whose weights lie in ROOT, tiled onto the default grid."""
    source = GeneratorSource(weights=root, weights_digest=weights_digest(root))
    return BuildRecipe(name="generated", samples=48, shard_samples=8, threads=2, source=source)


def demo(root: Path) -> BuildRecipe:
    """32 scenes of the generator in ROOT on the comparison grid, and what a network learns from them: minutes."""
    grid = GridConfig(**asdict(COMPARISON_GRID))
    digest = weights_digest(root)
    source = GeneratorSource(weights=root, weights_digest=digest, grid=grid, steps=10, batch=8, threads=1)
    return _demo("demo", source)


def demo_town() -> BuildRecipe:
    """The same of the embedded world's own scenes, where there are no weights."""
    return _demo("demo_town", TownSource(frames_per_sequence=2, grid=GridConfig(**asdict(COMPARISON_GRID))))


def _demo(name: str, source: GeneratorSource | TownSource) -> BuildRecipe:
    step = SscStep(recipe="small", steps=400, changes=("training.torch_threads=2",))
    views = ViewConfig(width_px=384, height_px=128)
    shares = {"val_share": 0.2, "ssc": step}
    return BuildRecipe(name=name, samples=32, shard_samples=8, source=source, views=views, **shares)


def town_images(root: Path) -> BuildRecipe:
    """48 streets at 384x128; images by the pipeline in ROOT/pipeline, judged by the critic in ROOT/critic."""
    recipe = town_demo().model_copy(update={"name": "town_images", "views": ViewConfig(width_px=384, height_px=128)})
    return _with_images(recipe, root)


def town_images_tiny(root: Path) -> BuildRecipe:
    """4 samples of town_images in few steps, for tests."""
    recipe = town_tiny().model_copy(update={"name": "town_images_tiny", "samples": 4})
    return change_recipe(_with_images(recipe, root), ("images.synthesis.steps=2", "images.redraws=1"))


def _with_images(recipe: BuildRecipe, root: Path) -> BuildRecipe:
    """The recipe with drawn images. root: a folder, or the name of shipped weights."""
    folder = root if root.exists() or len(root.parts) > 1 else data_path(f"weights/{root}")
    critic = [f"images.critic={folder / 'critic'}"] * (folder / "critic").exists()
    return change_recipe(recipe, ("images.kind=controlnet", f"images.weights={folder / 'pipeline'}", *critic))


def weights_digest(folder: Path) -> str:
    """SHA-256 of the card of saved weights. Raises InputError."""
    card = Path(folder) / "card.json"
    if not card.is_file():
        raise InputError(folder, "a folder of a generator's weights, with card.json", "none")
    return sha256_file(card)


RECIPES: dict[str, Callable[..., BuildRecipe]] = {
    f.__name__: f
    for f in (town_demo, town_tiny, semantic_kitti, generated, demo, demo_town, town_images, town_images_tiny)
}


def load_recipe(name: str, root: Path | None = None, changes: tuple[str, ...] = ()) -> BuildRecipe:
    """A recipe by name, with `changes` such as "samples=100" or "views.width_px=640" applied. Raises InputError."""
    if name not in RECIPES:
        raise InputError("recipe", f"one of {', '.join(RECIPES)}", repr(name), "see `occfactory recipes`")
    function = RECIPES[name]
    takes_root = "root" in inspect.signature(function).parameters
    if takes_root != (root is not None):
        expected = "a dataset ROOT after the name" if takes_root else "no ROOT"
        raise InputError(f"recipe {name}", expected, str(root or "none"))
    recipe = function(root) if takes_root else function()
    return change_recipe(recipe, changes)


def change_recipe(recipe: BuildRecipe, changes: tuple[str, ...]) -> BuildRecipe:
    """The recipe with "path=value" changes, values in JSON or as plain words. Raises InputError."""
    table = recipe.model_dump(mode="python")
    if recipe.ssc is None and any(change.startswith("ssc.") for change in changes):
        recipe, table = recipe.model_copy(update={"ssc": SscStep()}), {**table, "ssc": SscStep().model_dump()}
    table |= left_out(recipe)
    for part in ("source", "views", "images", "ssc"):
        if table[part] is not None:
            table[part] |= left_out(getattr(recipe, part))
    if any(change.startswith("views.real=") for change in changes):
        from flows.viewing import cameras_as_changes

        changes = cameras_as_changes(changes)
    apply_changes(table, _choose_images(table, changes))
    return validated(BuildRecipe, table)


def left_out(config: BaseModel) -> dict[str, Any]:
    """The fields that a dump leaves out: paths, and later ones at their defaults."""
    return {name: getattr(config, name) for name, f in type(config).model_fields.items() if f.exclude or f.exclude_if}


def _choose_images(table: dict[str, Any], changes: tuple[str, ...]) -> tuple[str, ...]:
    """Changes of images.kind and of its folders give `table` new images, whatever their order; the others are left."""
    chosen, left = {}, []
    for change in changes:
        path, _, value = change.partition("=")
        if path in ("images.kind", "images.weights", "images.controlnet", "images.critic"):
            chosen[path.removeprefix("images.")] = value
        else:
            left.append(change)
    if chosen:
        from flows.image_weights import image_fields

        table["images"] = image_fields(table["images"], chosen)
    return tuple(left)


def validated(kind: type[AnyModel], fields: dict[str, Any]) -> AnyModel:
    """A config from its fields; the first bad one is named in one line. Raises InputError."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(f"recipe field {where}", first["msg"], repr(first["input"])) from None
