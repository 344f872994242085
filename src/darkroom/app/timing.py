"""The measurements of ``darkroom bench``: medians of the parts of one generation."""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from darkroom.app.session import open_model
from darkroom.generation.decode import decode
from darkroom.generation.generate import generate
from darkroom.generation.guidance import Guidance

PROMPT = "a red apple on a wooden table"


def measure(
    name: str,
    size: tuple[int, int] | None,
    steps: int,
    repeat: int,
    dtype: str | None,
    device: str | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Time every part ``repeat`` times after one warm-up; JSON-ready, times in seconds.

    Args:
        size: (height, width) in pixels; None is the model's own.
        steps: of the whole picture.
    """
    model = open_model(name, dtype, device)
    chosen = generate(model, PROMPT, Guidance(1.0), seeds=(0,), steps=steps, size=size)
    height, width = chosen.run.size
    x, sigma = chosen.run.initial, chosen.run.levels.sigmas[0]
    scale = model.guidance
    cond = model.text_encoder([PROMPT], (height, width)).to(model.device, model.dtype)

    def picture() -> None:
        guidance = Guidance(scale)
        generate(model, PROMPT, guidance, seeds=(0,), steps=steps, size=size).pictures()

    @torch.no_grad()
    def network() -> None:
        model.denoise(sigma * x, sigma, cond)

    @torch.no_grad()
    def text() -> None:
        model.text_encoder([PROMPT], (height, width))

    tasks: dict[str, Callable[[], Any]] = {
        "load": lambda: open_model(name, dtype, device),
        "text": text,
        "unet": network,
        "decode": lambda: decode(model, x),
        f"picture ({steps} steps, guidance {scale:g})": picture,
    }
    parts = {}
    for part, task in tasks.items():
        say(f"measuring: {part}")
        parts[part] = times(task, repeat, model.device)
    return {
        "model": name,
        "size": f"{width}x{height}",
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "repeat": repeat,
        "parts": parts,
        "peak_memory": peak_memory(model.device),
    }


def times(task: Callable[[], Any], repeat: int, device: torch.device) -> dict[str, float]:
    """Median, least and most seconds of ``repeat`` runs after one that warms up."""
    seconds = []
    for _ in range(repeat + 1):
        _finish(device)
        started = time.perf_counter()
        task()
        _finish(device)
        seconds.append(time.perf_counter() - started)
    measured = seconds[1:]
    return {
        "median": statistics.median(measured),
        "least": min(measured),
        "most": max(measured),
    }


def peak_memory(device: torch.device) -> int:
    """The most bytes this process has held: on CUDA of the device, else resident."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
