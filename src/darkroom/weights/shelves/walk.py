"""A walk through one folder of models: what is a model there, and what its sub-folder is for."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from darkroom.errors import ConfigError
from darkroom.weights.registry import MODEL_SUFFIXES
from darkroom.weights.shelves.comfyui import EXTRA_PATHS, extra_paths

MOST = 50_000  # entries of one folder of models that are looked at
DEEPEST = 8  # folders below it
PICTURES = (".png", ".webp")  # which may hold a textual inversion
ADAPTERS = ("LoRA", "textual inversion", "hypernetwork")  # what --model never means
IN_FOLDERS = (  # what trainers call the file of an adapter that is a folder
    "pytorch_lora_weights", "adapter_model", "learned_embeds",
)  # fmt: skip
LEFTOVERS = ("optimizer", "scheduler", "random_states_0", "rng_state", "training_args")
CONFIGS = ("config.json", "adapter_config.json", "open_clip_config.json")
IGNORED = ("venv", "env", "node_modules", "__pycache__", "site-packages", "output", "outputs")
PROGRAM = ("models", "embeddings", "autoimport")  # where a program keeps its models
CONTROL = ("extensions/sd-webui-controlnet/models", "extensions-builtin/sd_forge_controlnet/models")
KINDS = {  # a sub-folder's name in lower case -> what `inspect` calls the files in it
    **dict.fromkeys(("stable-diffusion", "checkpoints", "main", "diffusers"), "checkpoint"),
    **dict.fromkeys(("unet", "diffusion_models"), "U-Net"),
    **dict.fromkeys(("vae",), "autoencoder"),
    **dict.fromkeys(("vae-approx", "vae_approx"), "tiny autoencoder"),
    **dict.fromkeys(("lora", "loras", "lycoris"), "LoRA"),
    **dict.fromkeys(("embeddings", "embedding"), "textual inversion"),
    **dict.fromkeys(("hypernetworks", "hypernetwork"), "hypernetwork"),
    **dict.fromkeys(("controlnet", "control_lora"), "ControlNet"),
    **dict.fromkeys(("t2i_adapter", "t2i-adapter"), "T2I-adapter"),
    **dict.fromkeys(("clip", "text_encoder", "text_encoders"), "text encoder"),
    **dict.fromkeys(("clip_vision",), "CLIP image encoder"),
    **dict.fromkeys(("ip_adapter", "ipadapter"), "IP-Adapter"),
    **dict.fromkeys(("sams", "sam"), "SAM"),
    **dict.fromkeys(
        ("upscale_models", "esrgan", "realesrgan", "swinir", "dat", "spandrel_image_to_image"),
        "upscaler",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Shelved:
    """A model that lies in a folder of models."""

    path: Path  # a file, or the folder of one model
    root: Path  # the folder of models
    kind: str = ""  # what its sub-folder is for, as ``inspect`` says; "" = that is not known

    @property
    def stem(self) -> str:
        """Its name without an ending; an adapter that is a folder goes by the folder's."""
        return self.path.name if self.path.is_dir() else self.path.stem

    @property
    def label(self) -> str:
        """Its path from the folder of models on."""
        try:
            return self.path.relative_to(self.root).as_posix()
        except ValueError:
            return self.path.as_posix()


def models_in(root: Path, seen: set[tuple[int, int]], problems: list[str]) -> Iterator[Shelved]:
    """Every model in a folder of models, or in those that an ``extra_model_paths.yaml`` names.

    Links are followed. Of the folder of a whole program only the parts that hold models are looked
    at. At most ``MOST`` entries are, ``DEEPEST`` folders deep.

    Args:
        seen: files and folders that were met before (device, number); they are left out.
        problems: gets a line for each thing that could not be looked at.
    """
    left = [MOST]
    for place, kind in _starts(root, problems):
        yield from _walk(place, root if root.is_dir() else place, kind, 0, left, seen)
    if left[0] <= 0:
        problems.append(f"{root}: more than {MOST:,} entries; those after them are not known")


def is_model_folder(names: set[str]) -> bool:
    """Whether a folder with files of these names is one model."""
    weights = [name for name in names if name.lower().endswith(MODEL_SUFFIXES)]
    stems = {name.rpartition(".")[0] for name in weights}
    if "model_index.json" in names or (weights and any(name in names for name in CONFIGS)):
        return True
    return bool(stems & {*IN_FOLDERS}) and stems <= {*IN_FOLDERS, *LEFTOVERS}


def kind_of_folder(name: str) -> str:
    """What a sub-folder of this name is for; "" = that is not known."""
    return KINDS.get(name.lower(), "")


def _starts(root: Path, problems: list[str]) -> Iterator[tuple[Path, str]]:
    extra = root if root.is_file() else root / EXTRA_PATHS
    if extra.is_file():
        try:
            for place, name in extra_paths(extra):
                if place.is_dir():
                    yield place, kind_of_folder(name)
                elif root == extra:
                    problems.append(f"{extra}: {place}: no such folder")
        except ConfigError as error:
            problems.append(str(error))
    if not root.is_dir() or root == extra:
        return
    parts = [root / name for name in PROGRAM if (root / name).is_dir()]
    parts += [root / name for name in CONTROL if (root / name).is_dir()]
    if root / PROGRAM[0] not in parts:
        yield root, kind_of_folder(root.name)
        return
    for place in parts:
        controls = place.relative_to(root).as_posix() in CONTROL
        yield place, "ControlNet" if controls else kind_of_folder(place.name)


def _walk(
    folder: Path, root: Path, kind: str, depth: int, left: list[int], seen: set[tuple[int, int]]
) -> Iterator[Shelved]:
    folders: list[os.DirEntry[str]] = []
    files: list[os.DirEntry[str]] = []
    try:
        if not _is_new(folder.stat(), seen):
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                left[0] -= 1
                if left[0] <= 0:
                    break
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(entry)
                elif entry.name.lower().endswith((*MODEL_SUFFIXES, *PICTURES, ".json")):
                    files.append(entry)
    except OSError:
        return
    one = depth and not kind_of_folder(folder.name)
    if one and is_model_folder({entry.name for entry in files}):
        yield Shelved(folder, root, kind)
        return
    for entry in sorted(files, key=lambda e: e.name):
        if entry.name.lower().endswith(".json"):
            continue
        try:
            there = entry.stat()
        except OSError:
            continue  # a link to nothing
        drawn = entry.name.lower().endswith(PICTURES)
        if drawn and kind not in ("", "textual inversion"):
            continue  # a preview
        if stat.S_ISREG(there.st_mode) and _is_new(there, seen):
            yield Shelved(Path(entry.path), root, kind)
    if depth == DEEPEST:
        return
    for entry in sorted(folders, key=lambda e: e.name):
        if entry.name.lower() not in IGNORED:
            below = kind_of_folder(entry.name) or kind
            yield from _walk(Path(entry.path), root, below, depth + 1, left, seen)


def _is_new(status: os.stat_result, seen: set[tuple[int, int]]) -> bool:
    key = (status.st_dev, status.st_ino)
    new = key not in seen
    seen.add(key)
    return new
