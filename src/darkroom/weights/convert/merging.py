"""``merge``: a weighted sum of two models, or one with the difference of two others added."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.errors import ModelMismatchError
from darkroom.names import did_you_mean
from darkroom.weights.adapters.lora import fit, open_lora
from darkroom.weights.convert.lazy import Lazy, real
from darkroom.weights.convert.opening import (
    dtype_called,
    networks_of,
    open_lazily,
    replace_each,
)
from darkroom.weights.convert.writing import Step, check_target, write
from darkroom.weights.folder import weight_files
from darkroom.weights.locate import Located, locate
from darkroom.weights.registry import hash_files
from darkroom.weights.save import TensorFile, files_of

METHODS = {"weighted": "Weighted sum", "difference": "Add difference"}  # as A1111 records them
FIRST = "input.weight"  # of the U-Net: (out, in, 3, 3), whose "in" an inpainting model has more of


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What becomes of two or three models.

    Attributes:
        ratio: weighted: (1 - ratio) * A + ratio * B; difference: A + ratio * (B - C).
        ratios: by part ("unet", "vae", "text"), in place of ``ratio``.
        loras: written into the result, each with its weight.
    """

    ratio: float = 0.3
    method: str = "weighted"
    ratios: Mapping[str, float] = field(default_factory=dict)
    loras: Sequence[tuple[str, float]] = ()

    def of(self, part: str) -> float:
        """The ratio of one part; both text towers are "text"."""
        return self.ratios.get("text" if part.startswith("text") else part, self.ratio)

    def check(self, models: int) -> None:
        """Refuse what means nothing.

        Raises:
            ValueError: a name or a number is wrong, or the number of models is.
        """
        if self.method not in METHODS:
            hint = did_you_mean(self.method, METHODS)
            raise ValueError(f"no method {self.method!r}{hint}; known: {', '.join(METHODS)}")
        wanted = 3 if self.method == "difference" else 2
        if models != wanted and not (models == 1 and self.loras):
            raise ValueError(
                f"method {self.method!r} takes {wanted} models, got {models}; "
                + ("A + ratio * (B - C)" if wanted == 3 else "(1 - ratio) * A + ratio * B")
            )
        limit = 1.0 if self.method == "weighted" else 10.0
        for value in (self.ratio, *self.ratios.values()):
            if not math.isfinite(value) or abs(value) > limit or (limit == 1 and value < 0):
                low = "0" if limit == 1 else f"-{limit:g}"
                raise ValueError(f"ratio {value:g}: expected {low} to {limit:g}")
        for part in self.ratios:
            if part not in ("unet", "vae", "text"):
                raise ValueError(f"no part {part!r}; known: unet, vae, text")


def merge(
    models: Sequence[str | os.PathLike[str]],
    target: str | os.PathLike[str],
    recipe: Recipe,
    *,
    to: str | None = None,
    dtype: str | torch.dtype | None = None,
    ema: bool = True,
    prediction: str | None = None,
    force: bool = False,
) -> Iterator[Step]:
    """Merge models into a new file or folder. Nothing happens until the steps are taken.

    The sums are made in float32, one tensor at a time, so memory holds a few tensors, whatever the
    size of the files. Whole numbers, and whatever else a model has beside its weights, are A's.
    B and C may have fewer input channels than an inpainting A: A keeps the rest. The SHA-256 of
    each model goes into the metadata.

    Args:
        models: A and B, or A, B and C; or A alone where LoRAs are written into it.
        target: a ``.safetensors`` file, or a folder.
        to: "darkroom" for a folder in Darkroom's own names; else ``target`` says it.
        dtype: "fp16", "bf16", "fp32"; None = A's.
        ema: of single files that hold both, merge the averaged weights.
        force: replace what is there.

    Raises:
        ModelMismatchError: the models are of different families or sizes.
        CheckpointError: a file cannot be used, or the place is taken.
        ValueError: the recipe means nothing.
    """
    recipe.check(len(models))
    target, number = Path(target), dtype_called(dtype)
    check_target(target, force)
    places = [locate(name) for name in models]
    opened = [open_lazily(place, ema=ema, prediction=prediction) for place in places]
    told = [*_predictions(opened, [place.path.name for place in places], recipe)]
    _combine(opened, [str(place.path) for place in places], recipe)
    loras = [_bake(opened[0], name, weight) for name, weight in recipe.loras]
    total = sum(path.stat().st_size for place in places for path in _files(place).values())
    stamps: list[dict[str, Any]] = []
    hashed = 0
    for name, place in zip(models, places, strict=True):
        files = _files(place)
        found: dict[str, str] = {}
        for step in hash_files(files):
            if step.sha256:
                found[step.file] = step.sha256
            yield Step(done=hashed + step.done, total=total, file=f"hashing {place.path.name}")
        hashed += sum(path.stat().st_size for path in files.values())
        stamps.append({"name": _called(name, place), "sha256": _whole(found)})
    record = _record(recipe, stamps, loras, target)
    merged = opened[0]
    if isinstance(merged, LatentDiffusion):
        settings = {**merged.settings, "merged": record}
        merged = replace(merged, name=target.stem, settings=settings)
    said = {"sd_merge_recipe": json.dumps(record)}

    def fill(place: Path) -> Iterator[TensorFile]:
        for file in files_of(merged, place, plain=to == "darkroom"):
            yield replace(file, metadata={**file.metadata, **said})

    yield from write(
        target, fill, dtype=number, notes=lambda: (*_notes(merged), *told), force=force
    )


def _notes(model: Any) -> Iterable[str]:
    return model.settings.get("notes", ()) if isinstance(model, LatentDiffusion) else ()


def _predictions(models: Sequence[Any], names: Sequence[str], recipe: Recipe) -> Iterator[str]:
    """What to say of models whose networks predict different things: the mix predicts neither."""
    if not all(isinstance(model, LatentDiffusion) for model in models) or len(models) < 2:
        return
    ratio, mixes = recipe.of("unet"), list(zip(names, map(_predicted, models), strict=True))
    if recipe.method == "difference":  # A may predict what it likes
        mixes = mixes[1:]
    (a, first), (b, second) = mixes[:2]
    if first != second and ratio and (recipe.method == "difference" or ratio < 1):
        yield (
            f"{a} predicts {first}, {b} {second}: what is mixed of both U-Nets predicts neither; "
            "the result is sampled as the first model is"
        )


def _predicted(model: LatentDiffusion) -> str:
    velocity = model.sampling.settings.get("prediction_type") == "v_prediction"
    edm = " at EDM's levels" if model.sampling.edm else ""
    return ("velocity" if velocity else "noise") + edm


def _combine(models: Sequence[Any], names: Sequence[str], recipe: Recipe) -> None:
    """Put the sums into the first model's networks."""
    first, *others = models
    for other, name in zip(others, names[1:], strict=True):
        _check_kind(first, names[0], other, name)
    parts = [networks_of(model) for model in models]
    for part, network in parts[0].items() if others else ():
        states = []
        for other, name in zip(parts[1:], names[1:], strict=True):
            if part not in other:
                raise ModelMismatchError(f"{name}: has no {part}, which {names[0]} has")
            states.append(other[part].state_dict())
            _check_shapes(part, network.state_dict(), names[0], states[-1], name)
        ratio = recipe.of(part)

        def mixed(name: str, own: Tensor, states: Any = states, ratio: float = ratio) -> Tensor:
            if not own.is_floating_point():
                return own
            return _mix(own, [state[name] for state in states], ratio, recipe.method)

        replace_each(network, mixed)


def _mix(own: Tensor, others: Sequence[Tensor], ratio: float, method: str) -> Tensor:
    def make() -> Tensor:
        kept: Tensor = real(own).detach()
        whole = kept.float()
        a, (b, *c) = whole, [real(other).detach().float() for other in others]
        if b.shape != a.shape:  # an inpainting model's further channels stay its own
            a = a[:, : b.shape[1]]
        mixed = (1 - ratio) * a + ratio * b if method == "weighted" else a + ratio * (b - c[0])
        if mixed.shape != whole.shape:
            mixed = torch.cat((mixed, whole[:, mixed.shape[1] :]), dim=1)
        return mixed.to(kept.dtype)

    return Lazy.made(tuple(own.shape), own.dtype, make)


def _check_kind(first: Any, name: str, other: Any, place: str) -> None:
    a, b = (
        m.family if isinstance(m, LatentDiffusion) else type(m).__name__ for m in (first, other)
    )
    if a != b:
        raise ModelMismatchError(
            f"{place}: is of family {b}, {name} of {a}; only models of one family can be merged"
        )


def _check_shapes(
    part: str, own: Mapping[str, Tensor], name: str, other: Mapping[str, Tensor], place: str
) -> None:
    if missing := own.keys() ^ other.keys():
        raise ModelMismatchError(
            f"{place}: its {part} has other layers than that of {name}, such as {min(missing)}; "
            "only models of one shape can be merged"
        )
    for key, tensor in own.items():
        a, b = tuple(tensor.shape), tuple(other[key].shape)
        if a == b:
            continue
        if part == "unet" and key == FIRST and (a[0], a[2:]) == (b[0], b[2:]):
            if a[1] > b[1]:
                continue
            raise ModelMismatchError(
                f"{place}: its U-Net takes {b[1]} channels, that of {name} {a[1]}; name the one "
                "with more channels first"
            )
        raise ModelMismatchError(
            f"{place}: {part} {key} has shape {b}, in {name} it has {a}; only models of one shape "
            "can be merged"
        )


def _bake(model: Any, name: str, weight: float) -> dict[str, Any]:
    """Add a LoRA to a lazy model; returns what the metadata say of it."""
    if not isinstance(model, LatentDiffusion):
        raise ModelMismatchError(f"{name}: a LoRA needs a whole model to be written into")
    file = open_lora(name)
    parts = networks_of(model)
    names = {"unet": "unet", "text": "text", "text2": "text1"}
    if model.family == "sdxl-refiner":
        names["text2"] = "text"
    for part, layers in fit(file, model).items():
        network = parts[names[part]]
        for path, layer in layers.items():
            place = network.get_submodule(path)
            plain = {leaf: place._parameters.get(leaf) for leaf in ("weight", "bias")}
            for leaf, own in plain.items():
                if own is None or (leaf == "bias" and layer.bias_difference() is None):
                    continue
                place._parameters[leaf] = torch.nn.Parameter(
                    _added(own, layer, place, leaf, weight, plain), requires_grad=False
                )
    return {"name": file.name, "sha256": file.sha256, "weight": weight}


def _added(
    own: Tensor, layer: Any, place: torch.nn.Module, leaf: str, weight: float, plain: Any
) -> Tensor:
    def make() -> Tensor:
        kept: Tensor = real(own).detach()
        if leaf == "bias":
            change = layer.bias_difference()
        else:
            change = layer.difference(_Before(place, plain))
        return torch.add(kept.float(), change.detach().float(), alpha=weight).to(kept.dtype)

    return Lazy.made(tuple(own.shape), own.dtype, make)


class _Before:
    """A layer with the weights that it had, for changes that are relative to them."""

    def __init__(self, place: torch.nn.Module, plain: Mapping[str, Tensor | None]) -> None:
        self._place, self._plain = place, plain

    def __getattr__(self, name: str) -> Any:
        if name in self._plain:
            tensor = self._plain[name]
            return None if tensor is None else real(tensor)
        return getattr(self._place, name)


def _files(place: Located) -> dict[str, Path]:
    """The files of weights of a model, by name."""
    path = place.path
    if path.is_file():
        return {path.name: path}
    folders = [path, *sorted(p for p in path.iterdir() if p.is_dir())]
    return {
        str((folder / name).relative_to(path)): folder / name
        for folder in folders
        for name in weight_files(folder)
    }


def _whole(found: Mapping[str, str]) -> str:
    """The hash of a file; of a folder that of its files' names and hashes."""
    if len(found) == 1:
        return next(iter(found.values()))
    return sha256("".join(f"{h}  {n}\n" for n, h in sorted(found.items())).encode()).hexdigest()


def _called(name: str | os.PathLike[str], place: Located) -> str:
    """A name, never a path of this machine."""
    return place.source or Path(os.fspath(name)).name


def _record(
    recipe: Recipe, stamps: list[dict[str, Any]], loras: list[dict[str, Any]], target: Path
) -> dict[str, Any]:
    """What was merged, under the names that A1111 gives it."""
    keys = ("primary_model_hash", "secondary_model_hash", "tertiary_model_hash")
    return {
        "type": "darkroom",
        **{key: stamp["sha256"] for key, stamp in zip(keys, stamps, strict=False)},
        "interp_method": METHODS[recipe.method] if len(stamps) > 1 else "No interpolation",
        "multiplier": recipe.ratio,
        "multipliers": dict(recipe.ratios),
        "custom_name": target.stem,
        "models": stamps,
        "loras": loras,
    }
