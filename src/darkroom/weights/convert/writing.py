"""Files of weights written tensor by tensor: all of them appear, or none."""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from darkroom.atomic import name_file, sweep, sync_folder, unfinished
from darkroom.errors import CheckpointError, DarkroomError
from darkroom.weights.convert.lazy import Lazy, real
from darkroom.weights.save import TensorFile, check_replaceable, writing

KEPT = ("alphas_cumprod*", "betas", "sqrt_*", "log_one_minus_*", "posterior_*", "edm_*")
# the noise levels, and mean and deviation of latents
ROOM = 1 << 20  # bytes beside the tensors: headers, tokenizer, configurations


@dataclass(frozen=True, kw_only=True)
class Step:
    """How far the work is. The first one has the notes, before anything is written."""

    done: int  # bytes
    total: int
    file: str = ""
    notes: tuple[str, ...] = ()


def check_target(target: Path, force: bool) -> None:
    """Refuse a place that is taken, or of an ending that is not written.

    Raises:
        CheckpointError: with what to do.
    """
    if target.suffix.lower() in (".ckpt", ".pt", ".pth", ".bin"):
        raise CheckpointError(f"{target}: pickles are not written; give a name ending .safetensors")
    if not os.path.lexists(target):
        return
    if not force:
        raise CheckpointError(f"{target}: exists already; choose another name, or pass --force")
    if target.suffix == ".safetensors":
        if target.is_dir():
            raise CheckpointError(f"{target}: is a folder; choose another name")
    else:
        check_replaceable(target)


def write(
    target: Path,
    fill: Callable[[Path], Iterable[TensorFile]],
    *,
    dtype: torch.dtype | None = None,
    notes: Callable[[], Iterable[str]] = tuple,
    force: bool = False,
) -> Iterator[Step]:
    """Write a file or a folder beside ``target``, and put it there when it is complete.

    Args:
        fill: makes everything but weights in an empty folder, or nothing for a file; and says
            which files of weights there are to be.
        dtype: of all numbers with a fraction; None = as they are.
        notes: asked for once ``fill`` is done.
        force: replace what is there.

    Raises:
        CheckpointError: the place is taken, or a number does not fit ``dtype``.
        DarkroomError: the disk has no room.
    """
    check_target(target, force)
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name[:80]}."
    sweep(target.parent, prefix)
    working = contextlib.ExitStack()
    staging = working.enter_context(unfinished(target.parent, prefix, directory=True))
    try:
        fresh = staging / target.name
        if target.suffix != ".safetensors":
            fresh.mkdir()
        files = [replace(f, tensors=cast_all(f.tensors, dtype)) for f in fill(fresh)]
        total = sum(t.numel() * t.element_size() for f in files for t in f.tensors.values())
        check_room(target, total)
        yield Step(done=0, total=total, notes=tuple(notes()))
        done = 0
        for file in files:
            file.path.parent.mkdir(parents=True, exist_ok=True)
            name = str(file.path.relative_to(staging))
            with file.path.open("wb") as out:
                for size in writing(out, target, file.tensors, file.metadata):
                    done += size
                    yield Step(done=done, total=total, file=name)
                out.flush()
                os.fsync(out.fileno())
        check_target(target, force)
        _place(fresh, target, staging / "replaced")
    except OSError as error:
        name_file(error, target)
        raise
    finally:
        working.close()
    sync_folder(target.parent)


def check_room(target: Path, size: int) -> None:
    """Refuse to begin where the disk cannot hold ``size`` bytes more.

    Raises:
        DarkroomError: with both figures.
    """
    free = shutil.disk_usage(target.parent).free
    if size + ROOM > free:
        raise DarkroomError(
            f"{target}: {size + ROOM:,} bytes needed, {free:,} free; free some space, choose "
            "another place, or a smaller --dtype"
        )


def _place(fresh: Path, target: Path, aside: Path) -> None:
    if not target.is_dir():
        os.replace(fresh, target)
        return
    target.rename(aside)
    try:
        fresh.rename(target)
    except BaseException:
        aside.rename(target)
        raise


def cast_all(tensors: Mapping[str, Tensor], dtype: torch.dtype | None) -> dict[str, Tensor]:
    """Every tensor in ``dtype``; whole numbers and a checkpoint's noise levels as they are."""
    from fnmatch import fnmatchcase

    return {
        name: tensor
        if any(fnmatchcase(name, pattern) for pattern in KEPT)
        else cast(name, tensor, dtype)
        for name, tensor in tensors.items()
    }


def cast(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A tensor that will be of ``dtype`` when it is made.

    Raises:
        CheckpointError: when made: a number is beyond ``dtype``.
    """
    if dtype is None or tensor.dtype == dtype or not tensor.is_floating_point():
        return tensor

    def make() -> Tensor:
        wide: Tensor = real(tensor).detach()
        narrow = wide.to(dtype)
        if dtype == torch.float16 and not narrow.isfinite().all() and wide.isfinite().all():
            raise CheckpointError(
                f"{name}: holds {wide.float().abs().max():.4g}, and float16 ends at 65504; use "
                "bf16 or fp32"
            )
        return narrow

    return Lazy.made(tuple(tensor.shape), dtype, make)
