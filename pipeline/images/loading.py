"""Anyone's diffusers pipeline or ControlNet, from a folder or by its hub name, checked before anything is loaded.

Stable Diffusion 1.x and 2.x class pipelines and our own small ones have the same parts. Only safetensors files are
read, only classes of diffusers and transformers are made, and nothing is downloaded unless the caller says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.images.base import INDEX_NAME, assemble, new_controlnet, quiet, read_card
from pipeline.images.config import check_conditioning_channels
from pipeline.scene.errors import InputError
from pipeline.scene.files import digest_of, safe_join, sha256_file

NETWORKS = ("vae", "text_encoder", "unet", "controlnet")
CONTENTS = (".json", ".txt", ".safetensors", ".model")  # of files that parts are made of
NEEDED = ("vae", "text_encoder", "tokenizer", "unet", "scheduler")
SUBFILES = {"tokenizer": "tokenizer_config.json", "scheduler": "scheduler_config.json"}  # else config.json
CLASSES = {
    "vae": ("AutoencoderKL", "AutoencoderTiny"),
    "unet": ("UNet2DConditionModel",),
    "controlnet": ("ControlNetModel",),
}


@dataclass(frozen=True)
class Source:
    """What a pipeline will be made of, before its weights are read.

    folders: of each part; configs: the networks'; classes: (library, class) of each part, as the index names them;
    controlnet is missing from all three where there is none yet.
    """

    subject: str
    folders: Mapping[str, Path]
    configs: Mapping[str, Mapping[str, Any]]
    classes: Mapping[str, tuple[str, str]]

    @property
    def multiple(self) -> int:
        """Image sizes must be multiples of this [px]: the VAE's halvings times the UNet's."""
        unet = len(self.configs["unet"]["block_out_channels"])
        return 2 ** (len(self.configs["vae"]["block_out_channels"]) + unet - 2)


def find_pipeline(base: str | Path, controlnet: str | Path | None = None, *, download: bool = False) -> Source:
    """Where the parts lie, with every config read and found to fit the others. Raises InputError.

    base: a pipeline's folder or a hub name that was downloaded before; its own ControlNet is used unless `controlnet`
    names another one. download: fetch hub names that aren't here yet.
    """
    folder = _local(base, INDEX_NAME, download)
    index = _json(folder / INDEX_NAME, "a diffusers pipeline")
    classes = {name: _class_of(folder, index, name) for name in (*NEEDED, "controlnet") if _present(index, name)}
    if missing := [name for name in NEEDED if name not in classes]:
        raise InputError(folder, "a pipeline of Stable Diffusion's class", f"none with a part {missing[0]!r}")
    if _present(index, "text_encoder_2"):
        raise InputError(folder, "a Stable Diffusion 1.x or 2.x pipeline", "one with two text encoders")
    folders = {name: folder / name for name in classes}
    if controlnet is not None:
        folders["controlnet"] = _local(controlnet, "config.json", download)
        classes["controlnet"] = ("diffusers", "ControlNetModel")
    for name, part in folders.items():
        if not (part / SUBFILES.get(name, "config.json")).is_file():
            raise InputError(
                part / SUBFILES.get(name, "config.json"), "a part named by the pipeline's index", "nothing"
            )
    configs = {name: _json(folders[name] / "config.json", f"a {name}'s config") for name in folders if name in NETWORKS}
    source = Source(str(base), folders, configs, classes)
    check_parts(source)
    return source


def check_size(source: Source, width: int, height: int) -> None:
    """Width and height must suit the VAE and the UNet. Raises InputError."""
    for name, value in (("width", width), ("height", height)):
        check_multiple(name, value, source.multiple)


def check_multiple(name: str, value: int, multiple: int) -> None:
    """One side of an image [px]. Raises InputError."""
    if value < 1 or value % multiple:
        nearest = max(multiple, round(value / multiple) * multiple)
        raise InputError(f"image {name}", f"a multiple of {multiple} px", str(value), f"the nearest is {nearest}")


def check_control(source: Source, conditioning_channels: int) -> None:
    """The ControlNet, if there is one, must take control images of so many channels. Raises InputError."""
    check_conditioning_channels(conditioning_channels)
    taken = source.configs.get("controlnet", {}).get("conditioning_channels", 3)
    if "controlnet" in source.configs and taken != conditioning_channels:
        remedy = "choose the recipe's conditions to fit, or train a ControlNet on these"
        raise InputError(source.folders["controlnet"], f"{conditioning_channels} control channels", str(taken), remedy)


def load_pipeline(
    base: str | Path,
    controlnet: str | Path | None = None,
    *,
    conditioning_channels: int,
    size: tuple[int, int],
    download: bool = False,
    fresh_controlnet: bool = False,
) -> Any:
    """A diffusers StableDiffusionControlNetPipeline, float32 on the CPU, ready for training or synthesis.

    conditioning_channels: of the recipe's control images; size: (width, height) of its images [px]. Where there is no
    ControlNet yet, or with fresh_controlnet, a new one starts from the UNet. Raises InputError, before weights are
    read where it can.
    """
    source = find_pipeline(base, controlnet, download=download)
    if fresh_controlnet:
        source = _without_controlnet(source)
    check_size(source, *size)
    check_control(source, conditioning_channels)
    check_digests(source)
    with quiet():
        parts = {name: _load(source, name) for name in source.folders}
    if "controlnet" not in parts:
        parts["controlnet"] = new_controlnet(parts["unet"], parts["vae"], conditioning_channels)
    return assemble(parts)


def _without_controlnet(source: Source) -> Source:
    folders = {name: folder for name, folder in source.folders.items() if name != "controlnet"}
    configs = {name: config for name, config in source.configs.items() if name != "controlnet"}
    classes = {name: kind for name, kind in source.classes.items() if name != "controlnet"}
    return Source(source.subject, folders, configs, classes)


def source_digest(source: Source) -> str:
    """SHA-256 of the contents of all parts, wherever they lie; a card's word is taken, as loading holds files to it."""
    return digest_of({name: _contents(folder) for name, folder in sorted(source.folders.items())})


def _contents(folder: Path) -> dict[str, str]:
    told = (read_card(folder.parent) or {"files": {}})["files"]
    own = {
        name.removeprefix(f"{folder.name}/"): sha for name, sha in told.items() if name.startswith(f"{folder.name}/")
    }
    files = sorted(path for path in folder.iterdir() if path.suffix in CONTENTS and path.is_file())
    return own or {path.name: sha256_file(path) for path in files}


def check_parts(source: Source) -> None:
    """Networks must be of the classes known here, with weights as safetensors, and fit together. Raises InputError."""
    for name, config in source.configs.items():
        known = CLASSES.get(name)
        if known and config.get("_class_name", known[0]) not in known:
            raise InputError(source.folders[name], _either(name), str(config["_class_name"]))
        if not list(source.folders[name].glob("*.safetensors")):
            raise InputError(
                source.folders[name], "weights as safetensors", "none", "convert them; pickles aren't read"
            )
        if name != "text_encoder" and not isinstance(config.get("block_out_channels"), list):
            raise InputError(source.folders[name], "a config with block_out_channels", "none")
    vae, unet, text = (source.configs[name] for name in ("vae", "unet", "text_encoder"))
    _same(source, "unet", "in_channels", vae.get("latent_channels", 4), "the VAE's latent channels", 4)
    _same(source, "unet", "cross_attention_dim", text.get("hidden_size"), "the text encoder's width", 1280)
    if "controlnet" in source.configs:
        _check_controlnet(source, unet, vae)


def _either(name: str) -> str:
    return "a " + " or ".join(CLASSES[name])


def _check_controlnet(source: Source, unet: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
    width = unet.get("cross_attention_dim", 1280)
    _same(source, "controlnet", "cross_attention_dim", width, "the UNet's cross-attention width", 1280)
    _same(source, "controlnet", "in_channels", unet.get("in_channels", 4), "the UNet's input channels", 4)
    for name in ("block_out_channels", "layers_per_block"):
        _same(source, "controlnet", name, unet.get(name, 2), f"the UNet's {name}", 2)
    embedding = source.configs["controlnet"].get("conditioning_embedding_out_channels") or (16, 32, 96, 256)
    if len(embedding) != len(vae["block_out_channels"]):
        halvings = len(vae["block_out_channels"]) - 1, len(embedding) - 1
        raise InputError(source.folders["controlnet"], f"{halvings[0]} halvings, the VAE's", str(halvings[1]))


def _same(source: Source, part: str, name: str, expected: Any, whose: str, default: Any) -> None:
    found = source.configs[part].get(name, default)
    if found != expected:
        what = f"{name} {expected}, {whose}"
        raise InputError(source.folders[part], what, str(found), "these parts don't belong together")


def check_digests(source: Source) -> None:
    """Files of a pipeline that `save_pipeline` wrote must be as it wrote them. Raises InputError."""
    for root in {folder.parent for folder in source.folders.values()}:
        for name, digest in (read_card(root) or {"files": {}})["files"].items():
            path = safe_join(root, name)
            if not path.is_file():
                raise InputError(path, "a file named by its card", "nothing")
            if sha256_file(path) != digest:
                raise InputError(path, f"SHA-256 {str(digest)[:12]}...", "other content", "the file is damaged")


def _local(name: str | Path, landmark: str, download: bool) -> Path:
    """The folder of a pipeline or ControlNet, found on disk or in the hub's cache."""
    folder = Path(name).expanduser()
    if (folder / landmark).is_file():
        return folder
    if folder.exists() or not _hub_like(str(name)):
        raise InputError(name, f"a diffusers folder with {landmark}", "none", "give a folder or a hub name")
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.txt", "*.safetensors", "*.model"]
    try:
        folder = Path(snapshot_download(str(name), allow_patterns=patterns, local_files_only=not download))
    except Exception as error:  # many kinds: no network, no such name, no right to it
        remedy = "give a folder, or allow the download" if not download else "check the name and the network"
        raise InputError(name, "a folder or a downloaded hub name", type(error).__name__, remedy) from None
    if not (folder / landmark).is_file():
        raise InputError(name, f"a repository with {landmark}", "none")
    return folder


def _hub_like(name: str) -> bool:
    parts = name.split("/")
    return len(parts) == 2 and all(part and not part.startswith((".", "~")) for part in parts)


def _json(path: Path, what: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(path, f"{what} (JSON)", str(error)) from None
    if not isinstance(value, dict):
        raise InputError(path, f"{what} (a JSON object)", type(value).__name__)
    return value


def _present(index: Mapping[str, Any], name: str) -> bool:
    entry = index.get(name)
    return isinstance(entry, list) and len(entry) == 2 and entry[0] is not None


def _class_of(folder: Path, index: Mapping[str, Any], name: str) -> tuple[str, str]:
    library, kind = map(str, index[name])
    if library not in ("diffusers", "transformers"):
        raise InputError(folder / INDEX_NAME, f"a {name} of diffusers or transformers", f"one of {library!r}")
    if name in CLASSES and kind not in CLASSES[name]:
        raise InputError(folder / INDEX_NAME, f"{name} {_either(name)}", kind)
    return library, kind


def _load(source: Source, name: str) -> Any:
    """One part; missing or foreign weights are a fault, not a warning."""
    import diffusers
    import transformers

    library, kind = source.classes[name]
    loader = getattr(diffusers if library == "diffusers" else transformers, kind, None)
    folder = source.folders[name]
    if loader is None or not hasattr(loader, "from_pretrained"):
        raise InputError(folder, f"a class that the installed {library} has", kind)
    if name not in NETWORKS:
        return _tried(folder, lambda: loader.from_pretrained(folder, local_files_only=True))
    options = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
    network, info = _tried(folder, lambda: loader.from_pretrained(folder, **options))
    for what in ("missing_keys", "mismatched_keys"):
        if names := sorted(map(str, info.get(what) or ())):
            raise InputError(folder, "weights for all of its config", f"{what.replace('_', ' ')}, as {names[0]}")
    return network.float().eval()


def _tried(folder: Path, load: Any) -> Any:
    try:
        return load()
    except Exception as error:  # diffusers and transformers raise OSError, ValueError, RuntimeError, SafetensorError...
        raise InputError(folder, "a part that loads", f"{type(error).__name__}: {str(error)[:200]}") from None
