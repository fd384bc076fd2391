"""Does the reverse process lose the foreground? Measured on trained generators, in two settings a stage.

forced  x_t ~ q(x_t | x_0) of held-out scenes, conditions their own: the model's flow beside the exact posterior's,
        which a perfect model equals in expectation. The excess is what one step gets wrong by itself.
own     along the generator's own draws, coarse scenes included: what the steps' errors add up to. Exact draws, whatever
        remedies (min_p, evidence) its own sampling has.
        Real scenes' shares beside it are those of their known voxels, and with hidden ones filled, which are as often
        inside of things: complete scenes should lie between.
Background is stated both ways: the background's classes alone, and everything that isn't foreground, empty too. The
foreground is the taxonomy's own set for all methods. All generators take the same number of steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from flows.flow_figure import FULL_RESOLUTION, draw_flows
from flows.generators import load_generator, scene_seeds
from flows.scene_masks import simulate_masks
from pipeline.datasets.formats import detect
from pipeline.diffusion.flow import Flow, FlowMeter, Times, teacher_forced
from pipeline.diffusion.schedules import pairs, respaced
from pipeline.diffusion.stage import Stage, StageData
from pipeline.generators.comp_d3pm import STAGES, CompD3PM
from pipeline.generators.volumes import threads
from pipeline.generators.whole_scene import WholeScene
from pipeline.learning.checkpoint import CARD_NAME
from pipeline.scene.errors import InputError
from pipeline.scene.files import require_empty, sha256_file, write_json
from pipeline.scene.taxonomy import EMPTY, IGNORE, Taxonomy

Method = CompD3PM | WholeScene
Labels = UInt8[np.ndarray, "n x y z"]
REPORT = "flow.json"


def flow_collapse(
    real: Path,
    weights: Mapping[str, Path],
    out: Path,
    *,
    scenes: int = 16,
    steps: int = 25,
    seed: int = 0,
    split: str = "val",
) -> dict[str, Any]:
    """Measure generators (folders of weights by name) on held-out scenes; write flow.json and pictures to `out`.

    scenes: held-out ones, and as many drawn; steps: of the reverse process, the same for all. Raises InputError.
    """
    require_empty(out)
    methods = {name: load_method(folder, steps) for name, folder in weights.items()}
    if not methods:
        raise InputError("--generator", "at least one NAME=WEIGHTS", "none")
    taxonomy = next(iter(methods.values())).taxonomy
    labels = held_out(real, split, scenes, next(iter(methods.values())))
    foreground, backgrounds = class_sets(taxonomy)
    report: dict[str, Any] = {
        "split": split,
        "scenes": len(labels),
        "steps": steps,
        "seed": seed,
        "foreground_classes": [c for c, member in zip(taxonomy.classes, foreground, strict=True) if member],
        "backgrounds": {name: [taxonomy.classes[k] for k in np.flatnonzero(t)] for name, t in backgrounds.items()},
        "real_share": foreground_share(labels, foreground.numpy()),
        "generators": {},
    }
    for name, method in methods.items():
        with threads(method.config.sampling.threads):
            measured = measure(method, labels, steps, seed)
        measured["weights"] = sha256_file(Path(weights[name]) / CARD_NAME)
        report["generators"][name] = measured
    write_json(Path(out) / REPORT, report)
    draw_flows(report, Path(out))
    return report


def load_method(folder: Path, steps: int) -> Method:
    """A generator that draws exactly, in so many steps at every resolution. Raises InputError."""
    method = load_generator(folder)
    assert isinstance(method, CompD3PM | WholeScene)
    exact = {"steps": steps, "fine_steps": steps, "min_p": 0.0, "evidence": 1.0}
    sampling = method.config.sampling.model_copy(update=exact)
    method.config = method.config.model_copy(update={"sampling": sampling})
    return method


def held_out(root: Path, split: str, count: int, method: Method) -> Labels:
    """Labels of so many scenes, evenly spread over the split. Raises InputError."""
    found = detect(root).open(root)
    frames = [(s, f) for s, f in found.frames(split) if found.label_files(s, f)[0].exists()]
    if len(frames) < count:
        raise InputError(root, f"at least {count} labelled scenes in split {split}", str(len(frames)))
    chosen = [found.scene(*frames[k * len(frames) // count]) for k in range(count)]
    for scene in chosen:
        if scene.grid != method.grid or scene.taxonomy.name != method.taxonomy.name:
            expected = f"scenes on the generator's grid {method.grid}, {method.taxonomy.name}"
            raise InputError(root, expected, f"{scene.grid}, {scene.taxonomy.name}")
    return np.stack([scene.labels for scene in chosen])


def class_sets(taxonomy: Taxonomy) -> tuple[Bool[Tensor, "k"], dict[str, Bool[Tensor, "k"]]]:
    """(foreground, {"classes": background classes, "with_empty": all but foreground}) by class id."""
    foreground = torch.from_numpy(taxonomy.is_foreground()[: len(taxonomy.classes)].copy())
    classes = ~foreground
    classes[EMPTY] = False
    return foreground, {"classes": classes, "with_empty": ~foreground}


def foreground_share(labels: Labels, foreground: Bool[np.ndarray, "k"]) -> float:
    """Foreground voxels to all valid voxels, empty ones included."""
    valid = labels != IGNORE
    return float(np.isin(labels, np.flatnonzero(foreground)).sum() / max(valid.sum(), 1))


def measure(method: Method, labels: Labels, steps: int, seed: int) -> dict[str, Any]:
    """Everything about one generator, ready for JSON."""
    data = stage_data(method, labels)
    own, drawn = own_flows(method, len(labels), seed)
    foreground = class_sets(method.taxonomy)[0].numpy()
    seen = np.stack([simulate_masks(volume, method.grid)[0] for volume in drawn])
    stages = {}
    for name, stage in named_stages(method).items():
        model, exact = forced_flows(method, stage, data[name], steps, seed)
        times = next(iter(own[name].values())).times
        real = {
            kind: foreground_share(labels, foreground)
            for kind, labels in (("known", data[name].target), ("filled", data[name].filled))
        }
        noise = float(foreground.mean())
        stages[name] = {
            "forced": {"model": _all(model), "exact": _all(exact)},
            "own": _all(own[name]),
            "own_last_share": last_share(own[name]["with_empty"]),
            "real_shares": {kind: expected_share(stage, times, share, noise) for kind, share in real.items()},
        }
    shares = {"complete": foreground_share(drawn, foreground), "as_seen": foreground_share(seen, foreground)}
    return {"method": method.config.method, "drawn_share": shares, "stages": stages}


def named_stages(method: Method) -> dict[str, Stage]:
    """A generator's stages, in the order they draw."""
    return {str(name): stage for name, stage in method.stages.items()}


def stage_data(method: Method, labels: Labels) -> dict[str, StageData]:
    """What each stage is asked to make of real scenes, and its conditions, as in training."""
    if isinstance(method, CompD3PM):
        return {str(name): data for name, data in method.training_data(labels, STAGES).items()}
    return {name: method.training_data(labels, name) for name in method.stages}


def forced_flows(
    method: Method, stage: Stage, data: StageData, steps: int, seed: int
) -> tuple[dict[str, Flow], dict[str, Flow]]:
    """(the model's, the exact posterior's) flows at x_t of real scenes."""
    stage.network.to(method.config.sampling.torch_device()).eval()
    sets = class_sets(method.taxonomy)
    meters = FlowMeter(stage.process, *sets), FlowMeter(stage.process, *sets)
    teacher_forced(stage, data, pairs(respaced(stage.process.steps, steps)), seed, meters, method.config.sampling.batch)
    return meters[0].flows(), meters[1].flows()


def own_flows(method: Method, scenes: int, seed: int) -> tuple[dict[str, dict[str, Flow]], Labels]:
    """Each stage's flows along the generator's own draws, and the scenes drawn."""
    sets = class_sets(method.taxonomy)
    meters = {name: FlowMeter(stage.process, *sets) for name, stage in named_stages(method).items()}
    for name, stage in named_stages(method).items():
        stage.watch = meters[name].see
    drawn = method.sample(scenes, scene_seeds(seed, range(scenes)))
    for stage in named_stages(method).values():
        stage.watch = None
    flows = {name: {k: f.first(scenes) for k, f in meter.flows().items()} for name, meter in meters.items()}
    return flows, np.stack([scene.labels for scene in drawn])


def last_share(flow: Flow) -> float:
    """The foreground's expected share of x_0, if the background is everything else."""
    held = flow.foreground[-1] - flow.alpha[-1] + flow.beta[-1]
    return float(held.sum() / flow.voxels[-1].sum())


def expected_share(stage: Stage, times: tuple[Times, ...], real_share: float, noise_share: float) -> list[float]:
    """The foreground's share of x_t under q, if x_0 has the real share: at each step's t, and at last of x_0."""
    kept = np.append(stage.process.alpha_bar.numpy()[[t for t, _ in times]], 1.0)
    shares = kept * real_share + (1 - kept) * (noise_share if stage.process.kind == "uniform" else 0)
    return shares.tolist()


def _all(flows: Mapping[str, Flow]) -> dict[str, Any]:
    return {name: as_json(flow) for name, flow in flows.items()}


def as_json(flow: Flow) -> dict[str, Any]:
    """A flow's figures by step; masses and counts are voxels a scene."""
    columns = {
        "alpha_mass": flow.alpha.mean(1),
        "beta_mass": flow.beta.mean(1),
        "alpha_rate": flow.alpha_rate,
        "beta_rate": flow.beta_rate,
        "lost": flow.lost,
        "foreground_voxels": flow.foreground.mean(1),
        "background_voxels": flow.background.mean(1),
        "foreground_share": flow.share,
    }
    return {"t": [t for t, _ in flow.times], "s": [s for _, s in flow.times]} | {
        name: column.tolist() for name, column in columns.items()
    }


def summary(report: Mapping[str, Any]) -> list[str]:
    """A few lines for the terminal, of the full-resolution stages."""
    real = report["real_share"]
    lines = [f"{report['scenes']} scenes, {report['steps']} steps; foreground's share of real voxels {real:.4f}"]
    for name, measured in report["generators"].items():
        share = measured["drawn_share"]["as_seen"]
        lines.append(f"{name}: foreground's share of drawn voxels {share:.4f}, {share / max(real, 1e-12):.2f} of real")
        for stage, flows in measured["stages"].items():
            if stage in FULL_RESOLUTION:
                lines += [
                    f"  {stage}, background {kind}: {_forced_line(flows, kind)}" for kind in report["backgrounds"]
                ]
    return lines


def _forced_line(flows: Mapping[str, Any], kind: str) -> str:
    model, exact = flows["forced"]["model"][kind], flows["forced"]["exact"][kind]
    ratios = [sum(model[key]) / max(sum(exact[key]), 1e-12) for key in ("alpha_mass", "beta_mass")]
    excess = model["lost"][-1] - exact["lost"][-1]
    return f"alpha {ratios[0]:.3f} and beta {ratios[1]:.3f} of the exact, {excess:+.1f} voxels a scene lost beyond it"
