"""A CLIP that comes in one file: what it is, by everything that says so."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darkroom.errors import CheckpointError, ConfigError, LayoutError
from darkroom.models.clip.network import Clip, ClipConfig
from darkroom.models.clip.presets import with_gelu
from darkroom.models.clip.view import View
from darkroom.weights.assemble import assemble, release
from darkroom.weights.catalog import Known, by_file
from darkroom.weights.files import read_tensors
from darkroom.weights.folder import Target, read_json
from darkroom.weights.layout import Layout, StateDict, convert
from darkroom.weights.layouts.clip import configs, names, sizes
from darkroom.weights.locate import WEIGHTS as SUFFIXES
from darkroom.weights.locate import best_set

DESCRIPTION = "open_clip_config.json"
WEIGHTS = "open_clip_"  # how open_clip calls the file beside it
COUNTER = "num_batches_tracked"  # no output depends on it


def load_clip(path: Path, target: Target) -> Clip:
    """Read OpenAI's archive, open_clip's file, or transformers' without its folder.

    Raises:
        CheckpointError: it does not say whether its GELU is the quick one.
        LayoutError: it has other tensors than a CLIP.
    """
    tensors = target.wrap(read_tensors(path))
    state = {name: tensors[name] for name in tensors}
    aside: list[str] = []
    try:
        config, converted = read(state, Said(path, target), aside)
    except (LayoutError, ConfigError) as error:
        raise LayoutError(f"{path}: {error}") from None
    except KeyError as error:
        raise LayoutError(f"{path}: a CLIP without {error.args[0]}") from None
    except ValueError as error:
        raise LayoutError(f"{path}: no CLIP: {error}") from None
    target.leave(aside, path)
    return assemble(Clip, config, converted, target.dtype, target.device, release(tensors))


def open_clip_file(folder: Path) -> Path | None:
    """The file in a folder that open_clip wrote: safetensors before a pickle."""
    found = best_set(
        path.name
        for path in folder.iterdir()
        if path.name.startswith(WEIGHTS) and path.suffix in SUFFIXES
    )
    return folder / found[0] if found else None


@dataclass(frozen=True)
class Said:
    """What the user, the files beside this one and the catalogue say of it."""

    path: Path
    target: Target

    @property
    def known(self) -> Known | None:
        """The catalogue's row."""
        return self.target.known or by_file(self.path.stem)

    def described(self, huggingface: bool) -> ClipConfig | None:
        """By the config that lies beside the file.

        Raises:
            CheckpointError: it is damaged, or of a CLIP that Darkroom has not.
        """
        if huggingface:
            return _beside(self.path, "config.json", configs.clip_config)
        if not self.path.name.startswith(WEIGHTS):
            return None
        return _beside(self.path, DESCRIPTION, configs.open_clip_config)

    def quick_gelu(self, openai: bool) -> bool:
        """Which GELU, where no config says so.

        Raises:
            CheckpointError: nobody says.
        """
        known = self.known
        said = self.target.activation or (known.settings.get("activation") if known else None)
        if said is None and not openai:
            raise CheckpointError(
                f"{self.path}: a CLIP file does not say its activation; pass "
                'activation="quick_gelu" (OpenAI\'s, MetaCLIP, DFN) or "gelu" (LAION-2B\'s, '
                "DataComp), or say it once: `darkroom models convert FILE FOLDER --activation "
                f"gelu`; its {DESCRIPTION} beside it says so, too"
            )
        return openai if said is None else said == "quick_gelu"

    def view(self, view: View) -> View:
        """How pictures are brought to it, where no config says so."""
        known = self.known
        own = known.settings.get("view", {}) if known else {}
        return replace(view, **own)


def read(
    state: Mapping[str, Tensor], said: Said, aside: list[str] | None = None
) -> tuple[ClipConfig, StateDict]:
    """The config and our names for the tensors of one file; ``aside`` as of ``layout.convert``.

    Raises:
        CheckpointError: it does not say whether its GELU is the quick one.
        KeyError, ValueError, LayoutError: it is no CLIP.
    """
    huggingface = "visual_projection.weight" in state
    layout: Layout[Any] = names.HUGGINGFACE if huggingface else names.OPENAI_LAYOUT
    config = said.described(huggingface)
    if config is None:
        quick = said.quick_gelu(openai=names.EXTRAS[0] in state)
        by_shapes = sizes.huggingface_sizes if huggingface else sizes.openai_sizes
        config = by_shapes(state, quick)
        config = replace(config, view=said.view(config.view))
    elif said.target.activation:
        config = with_gelu(config, said.target.activation == "quick_gelu")
    converted = convert(state, layout.entries(config), aside)
    for name in layout.shapes(config):
        if name.endswith(f".{COUNTER}"):
            converted.setdefault(name, torch.zeros((), dtype=torch.int64))
    return config, converted


def _beside(
    path: Path, name: str, reader: Callable[[Mapping[str, Any], str], ClipConfig]
) -> ClipConfig | None:
    where = path.parent / name
    return reader(read_json(where), str(where)) if where.is_file() else None
