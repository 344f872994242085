"""``convert``: a model from one form to another, tensor by tensor."""

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.diffusion.pixel_diffusion import PixelDiffusion
from darkroom.errors import CheckpointError
from darkroom.models.clip.network import Clip
from darkroom.names import did_you_mean
from darkroom.weights.convert.opening import (
    dtype_called,
    lazily,
    networks_of,
    open_lazily,
    replace_each,
    target_of,
)
from darkroom.weights.convert.writing import Step, check_target, write
from darkroom.weights.files import read_header, read_tensors
from darkroom.weights.folder import Reading, read_json, weight_files
from darkroom.weights.inspect import FileReport, inspect
from darkroom.weights.layouts.clip.configs import check_activation
from darkroom.weights.layouts.single_file import UNUSED
from darkroom.weights.locate import WEIGHTS, Located, best_set, locate
from darkroom.weights.save import TensorFile, files_of
from darkroom.weights.single_file import ALONE, AVERAGED, averaged
from darkroom.weights.trained import MARKS

FORMS = ("diffusers", "single", "darkroom")
LORA_FORMS = ("kohya", "diffusers", "peft")
EMBEDDING_FORMS = ("a1111", "diffusers")
EMA = ("use", "drop", "keep")
COPIED = (".json", ".txt", ".md", ".model")
HASHES = ("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256")  # of the numbers as read
Fill = Callable[[Path], Iterable[TensorFile]]


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    to: str | None = None,
    dtype: str | torch.dtype | None = None,
    ema: str = "use",
    base: str | None = None,
    variant: str | None = None,
    prediction: str | None = None,
    activation: str | None = None,
    force: bool = False,
) -> Iterator[Step]:
    """Write a model in another form. Nothing happens until the steps are taken.

    Where the form stays and only the numbers change, all names and every file beside the weights
    stay, too. Otherwise the tensors are renamed and reshaped exactly, and the notes of the first
    step say what the new form has no place for. Memory holds about one tensor.

    Args:
        source: anything that ``load`` opens, a LoRA, or a textual inversion.
        target: a ``.safetensors`` file, or a folder.
        to: "diffusers" (a folder), "single" (one file in LDM or SGM names), "darkroom" (a folder in
            our own names); a LoRA: "kohya", "diffusers", "peft"; a textual inversion: "a1111",
            "diffusers". None: what ``target`` looks like, a LoRA as it is.
        dtype: "fp16", "bf16", "fp32"; None = as stored.
        ema: of a single file with averaged weights: "use" those, "drop" them, "keep" both.
        base: the model that a LoRA is for, where it changes its spelling.
        variant: in the names of a folder's weights, such as "fp16".
        prediction: of an SD 2 file that does not say it: "noise" or "velocity".
        activation: of a CLIP file that does not say it: "quick_gelu" or "gelu".
        force: replace what is there.

    Raises:
        CheckpointError: the model cannot be used or has no such form, or the place is taken.
        ModelNotFoundError: there is no such model.
        ValueError: an argument is none of its values.
    """
    target, number = Path(target), dtype_called(dtype)
    if ema not in EMA:
        raise ValueError(f"ema {ema!r}{did_you_mean(ema, EMA)}: expected {', '.join(EMA)}")
    if variant is not None and not re.fullmatch(r"\w+", variant):
        raise ValueError(f"variant {variant!r}: expected a word, such as fp16")
    check_target(target, force)
    if activation is not None:
        check_activation(activation)
    located = locate(source)
    path, notes = located.path, list[str]()
    report = inspect(path) if path.is_file() else None
    kind = report.kind if report else ""
    if activation is not None and kind not in ("CLIP", ""):
        raise ValueError(f"{path}: activation goes with a CLIP, this is: {kind}")
    if (
        kind == "textual inversion"
        or to == "a1111"
        or path.suffix.lower() in (".png", ".webp", ".jpg", ".jpeg")
    ):
        fill = _embedding(path, target, _form(to, EMBEDDING_FORMS, "a1111"), number)
    elif kind == "LoRA":
        if to is not None:
            _form(to, LORA_FORMS, "")
            yield from _lora(path, target, to, base, number)
            return
        fill = _same_names(path, ema, number is not None, notes)
    elif kind == "hypernetwork":
        raise CheckpointError(f"{path}: a hypernetwork has one form alone, A1111's .pt")
    else:
        if base is not None:
            raise ValueError(f"{path}: base goes with a LoRA, this is: {kind or 'a folder'}")
        form = _form(to, FORMS, "single" if target.suffix == ".safetensors" else "diffusers")
        if (form == "single") != (target.suffix == ".safetensors"):
            wanted = "a name ending .safetensors" if form == "single" else "a folder"
            raise ValueError(f"{target}: {wanted} is expected for {form!r}")
        if form == "single" and report and _stays(report) and activation is None:
            fill = _same_names(path, ema, number is not None, notes)
        elif form == "diffusers" and report is None and _own_parts(path) and activation is None:
            fill = _same_folder(located, variant, notes)
        else:
            if ema == "keep":
                raise ValueError("ema 'keep' goes from file to file; say 'use' or 'drop'")
            said = {"prediction": prediction, "activation": activation}
            fill = _renamed(located, form, ema == "use", said, variant, notes, report)
    yield from write(target, fill, dtype=number, notes=lambda: notes, force=force)


def _form(to: str | None, forms: tuple[str, ...], default: str) -> str:
    if to is None:
        return default
    if to not in forms:
        raise ValueError(f"no form {to!r}{did_you_mean(to, forms)}; known: {', '.join(forms)}")
    return to


def _stays(report: FileReport) -> bool:
    """Whether a file's names are those of a single file already, or of no network of ours."""
    renamed = {model.__name__.lower() for model in ALONE} | {"t2i-adapter"}
    return report.layout != "diffusers" or report.kind.lower() not in renamed


def _own_parts(folder: Path) -> bool:
    """Whether a folder holds all its parts itself."""
    index = folder / "model_index.json"
    own = read_json(index).get("_darkroom") if index.is_file() else None
    return not (isinstance(own, dict) and "parts_of" in own)


def _renamed(
    located: Located,
    form: str,
    ema: bool,
    said: Mapping[str, str | None],
    variant: str | None,
    notes: list[str],
    report: FileReport | None,
) -> Fill:
    """Through our names."""
    model = open_lazily(located, ema=ema, **said)
    if said["activation"] and not isinstance(model, Clip):
        raise ValueError(f"{located.path}: activation goes with a CLIP")
    if isinstance(model, LatentDiffusion):
        notes += model.settings.get("notes", ())
        if report is None and form == "single":
            notes.append(
                "scheduler and tokenizer go into the file's metadata, which Darkroom reads; other "
                "programs use those of the family"
            )
    elif form == "single" and type(model) not in ALONE:
        kind = "PixelDiffusion" if isinstance(model, PixelDiffusion) else type(model).__name__
        known = ", ".join(known.__name__ for known in ALONE)
        raise CheckpointError(f"{located.path}: a {kind} has no single file; {known} have one")
    if report is not None:
        notes += _left_out(located.path, model)

    def fill(place: Path) -> Iterator[TensorFile]:
        for file in files_of(model, place, plain=form == "darkroom"):
            path = file.path
            if variant and form != "single":
                path = path.with_name(f"{path.stem}.{variant}{path.suffix}")
            yield TensorFile(path, file.tensors, file.metadata)

    return fill


def _left_out(path: Path, model: Any) -> Iterator[str]:
    """What a single file has and no network needs."""
    names = list(read_header(path).tensors)
    # marks of how it was trained go into configurations, or are written again
    rest = [name for name in names if name not in MARKS]
    left = [n for n in rest if any(fnmatchcase(n, pattern) for pattern in UNUSED)]
    plain = [name for name in left if not name.startswith(AVERAGED)]
    left_ids = [name for name in names if name.endswith("position_ids")]
    layers = getattr(networks_of(model).get("text"), "config", None)
    last = f".transformer.resblocks.{layers.layers}." if layers else "\0"
    unused = [name for name in names if last in name]
    for found, what in (
        (plain, "of noise levels, training and scale"),
        (left_ids, "of position_ids"),
        (unused, "of the text tower's last layer, which Stable Diffusion 2 does not use"),
    ):
        if found:
            yield f"{len(found)} tensors {what} are left out, such as {found[0]}"


def _same_names(path: Path, ema: str, cast: bool, notes: list[str]) -> Fill:
    """One file, its names as they are."""
    tensors = lazily(read_tensors(path))
    metadata = dict(read_header(path).metadata)
    if cast:
        metadata = {key: value for key, value in metadata.items() if key not in HASHES}
    chosen = dict(tensors)
    if ema != "keep":
        chosen = dict(averaged(tensors, ema == "use", notes))
        both = any(name.startswith("model.diffusion_model.") for name in chosen)
        if both:
            chosen = {name: t for name, t in chosen.items() if not name.startswith(AVERAGED)}
    metadata.setdefault("format", "pt")
    return lambda place: [TensorFile(place, chosen, metadata)]


def _same_folder(located: Located, variant: str | None, notes: list[str]) -> Fill:
    """A folder, its names and everything beside the weights as they are."""
    folder = located.path
    index = folder / "model_index.json"
    parts = [folder]
    if index.is_file():
        said = read_json(index)
        named = [n for n, v in said.items() if isinstance(v, list) and v and v[-1] is not None]
        parts += [folder / name for name in sorted(named) if (folder / name).is_dir()]
    elif not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{folder}: no model here; expected model_index.json, or config.json with weights"
        )
    target = target_of(located)
    left = [p.name for p in folder.iterdir() if p.is_dir() and p not in parts]
    left += [p.name for p in folder.iterdir() if p.is_file() and _is_weights(p)
             and p.name not in weight_files(folder)]  # fmt: skip
    if left:
        notes.append(f"left out, as no part of the model: {', '.join(sorted(left)[:5])}")

    def fill(place: Path) -> Iterator[TensorFile]:
        for part in parts:
            inside = place / part.relative_to(folder)
            inside.mkdir(exist_ok=True)
            for file in sorted(part.iterdir()):
                plain = file.suffix in COPIED or not file.suffix
                if file.is_file() and plain and ".index." not in file.name:
                    shutil.copyfile(file, inside / file.name)
            chosen = best_set(weight_files(part), "")
            if chosen:
                tensors = Reading(folder, target).tensors(part)
                stem = re.sub(r"-\d{5}-of-\d{5}", "", chosen[0]).partition(".")[0]
                stem = "model" if stem == "pytorch_model" else stem
                name = f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors"
                yield TensorFile(inside / name, tensors, {"format": "pt"})

    return fill


def _is_weights(path: Path) -> bool:
    return path.suffix in (*WEIGHTS, ".msgpack", ".onnx", ".h5")


def _embedding(path: Path, target: Path, form: str, dtype: torch.dtype | None) -> Fill:
    from darkroom.weights.adapters.embeddings import open_embedding

    if target.suffix != ".safetensors":
        raise ValueError(
            f"{target}: a textual inversion is a file; give a name ending .safetensors"
        )
    file = open_embedding(path)
    vectors: list[Tensor] = [tensor.contiguous() for tensor in file.vectors]
    if dtype is None and path.suffix.lower() in WEIGHTS:
        stored = {info.dtype for info in read_header(path).tensors.values()}
        if len(stored) == 1:
            vectors = [tensor.to(getattr(torch, next(iter(stored)))) for tensor in vectors]
    if form == "diffusers" and len(vectors) == 1:
        named: dict[str, Tensor] = {file.words[0]: vectors[0]}
    else:
        names: tuple[str, ...] = ("emb_params",) if len(vectors) == 1 else ("clip_l", "clip_g")
        named = dict(zip(names, vectors, strict=True))
    return lambda place: [TensorFile(place, named, {"format": "pt"})]


def _lora(
    path: Path, target: Path, to: str, base: str | None, dtype: torch.dtype | None
) -> Iterator[Step]:
    """A LoRA into another spelling, by the names of the model that it is for."""
    from darkroom.weights.adapters.lora import fit, open_lora
    from darkroom.weights.adapters.saving import save_lora

    if base is None:
        raise ValueError(f"{path}: to spell a LoRA anew, say with base which model it is for")
    file = open_lora(path)
    stored = dtype
    if stored is None:
        names = {tensor.dtype for tensor in file.tensors.values() if tensor.numel() > 1}
        stored = max(names, key=lambda kind: torch.finfo(kind).bits)
    model = open_lazily(locate(base))
    if not isinstance(model, LatentDiffusion):
        raise CheckpointError(f"{base}: a LoRA is for a whole model, this is a part of one")
    kind = stored
    for network in networks_of(model).values():
        replace_each(network, lambda _, t: t.to(kind) if t.is_floating_point() else t)
    layers = fit(file, model)
    size = sum(tensor.numel() * tensor.element_size() for tensor in file.tensors.values())
    yield Step(done=0, total=size, notes=("training notes in the metadata are left out",))
    save_lora(target, model, layers, to)
    yield Step(done=size, total=size, file=target.name)
