"""What this machine offers and what stands in the way. Looks, and changes nothing."""

import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from darkroom import machine
from darkroom.app.found import found_models
from darkroom.app.terminal import bytes_text
from darkroom.weights.locate import cache_root
from darkroom.weights.registry import home

EXTRAS = {"train": ("tensorboard",), "oracles": ("diffusers", "transformers", "scipy")}
PACKAGES = (
    "torch",
    "numpy",
    "pillow",
    "safetensors",
    "huggingface_hub",
    "tokenizers",
    "typer",
    "rich",
    "platformdirs",
)
TUNING = "GLIBC_TUNABLES=glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=68719476736"
GB = 1e9


@dataclass(frozen=True)
class Problem:
    """Something to know: ``fatal`` ones keep Darkroom from working."""

    what: str
    remedy: str
    fatal: bool = False


def examine(measure: bool = False) -> dict[str, Any]:
    """Everything ``darkroom doctor`` tells, JSON-ready; imports torch.

    Args:
        measure: the speed of operations anew; else what is known of it.
    """
    problems: list[Problem] = []
    facts: dict[str, Any] = {
        "darkroom": _version("darkroom-studio"),
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "extras": {name: _has(modules) for name, modules in EXTRAS.items()},
    }
    facts["torch"] = _torch(problems)
    facts["processor"] = _processor(facts["torch"], problems)
    facts["memory"] = _memory(problems)
    facts["disk"] = _disk(problems)
    facts["folders"] = {"data": str(home()), "cache": str(cache_root())}
    facts["models"] = _models(problems)
    facts["allocator"] = _allocator(problems)
    facts["speed"] = _speed(measure) if facts["torch"].get("mkldnn") else {}
    facts["problems"] = [asdict(problem) for problem in problems]
    facts["usable"] = not any(problem.fatal for problem in problems)
    return facts


def _speed(measure: bool) -> dict[str, Any]:
    from darkroom.app import speeds

    if measure:
        speeds.measure_again()
    return speeds.told()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _has(modules: tuple[str, ...]) -> bool:
    return all(importlib.util.find_spec(module) for module in modules)


def _torch(problems: list[Problem]) -> dict[str, Any]:
    try:
        import torch
    except (ImportError, OSError) as error:
        problems.append(Problem(f"torch cannot be imported: {error}", "install torch", True))
        return {}
    devices = [{"name": "cpu", "what": platform.processor() or platform.machine()}]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = bytes_text(properties.total_memory)
        devices.append({"name": f"cuda:{index}", "what": f"{properties.name}, {memory}"})
    if torch.backends.mps.is_available():
        devices.append({"name": "mps", "what": "Apple GPU"})
    if torch.version.cuda and not torch.cuda.is_available():
        problems.append(
            Problem(
                f"torch was built for CUDA {torch.version.cuda}, but no such device is usable",
                "update the NVIDIA driver, or install the CPU build of torch",
            )
        )
    number = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if number < (2, 10):
        problems.append(
            Problem(f"torch {torch.__version__} is older than 2.10", "pip install -U torch", True)
        )
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "devices": devices,
        "default_device": "cuda" if torch.cuda.is_available() else "cpu",
        "default_dtype": "float16" if torch.cuda.is_available() else "float32",
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "mkldnn": torch.backends.mkldnn.is_available(),
    }


def _processor(torch_facts: dict[str, Any], problems: list[Problem]) -> dict[str, Any]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = torch_facts.get("threads")
    variable = os.environ.get("OMP_NUM_THREADS")
    if threads and usable and threads > usable:
        problems.append(
            Problem(
                f"torch runs {threads} threads on {usable} usable cores",
                f"export OMP_NUM_THREADS={usable}",
            )
        )
    if variable and usable and variable.isdigit() and int(variable) * 2 < usable:
        problems.append(
            Problem(f"OMP_NUM_THREADS={variable} leaves cores idle", "unset OMP_NUM_THREADS")
        )
    return {"model": machine.processor(), "cores": usable, "threads": threads}


def _memory(problems: list[Problem]) -> dict[str, Any]:
    known = machine.memory()
    if known is None:
        return {}
    total = known.total
    available = total if known.available is None else known.available
    if available < 2 * GB:
        problems.append(
            Problem(
                f"only {bytes_text(available)} of memory are available",
                "close other programs; SD 1.5 at 512x512 takes about 5 GB in float32",
            )
        )
    return {"total": total, "available": available}


def _disk(problems: list[Problem]) -> dict[str, Any]:
    places = {"here": Path.cwd(), "data": home(), "cache": cache_root()}
    found = {}
    for name, place in places.items():
        existing = next((p for p in (place, *place.parents) if p.exists()), None)
        if existing is None:
            continue
        free = shutil.disk_usage(existing).free
        found[name] = {"path": str(place), "free": free}
        if free < 1 * GB:
            problems.append(
                Problem(f"{place}: only {bytes_text(free)} free", "free some space there")
            )
        if not os.access(existing, os.W_OK):
            problems.append(Problem(f"{existing}: not writable", "check its permissions"))
    return found


def _models(problems: list[Problem]) -> list[dict[str, Any]]:
    models = found_models()
    for model in models:
        for problem in model.problems:
            problems.append(
                Problem(
                    f"model {model.name!r}: {problem}",
                    f"put the file back, or `darkroom models remove {model.name}`",
                )
            )
    if not any(model.place == "built-in" for model in models):
        problems.append(Problem("the built-in model is missing", "install darkroom-studio again"))
    return [model.plain() for model in models]


def _allocator(problems: list[Problem]) -> dict[str, Any]:
    """Glibc returns freed memory at once; every forward pays page faults for getting it back."""
    from darkroom.acceleration import is_wanted

    name = platform.libc_ver()[0]
    preloaded = os.environ.get("LD_PRELOAD", "")
    tuned = (
        any(word in preloaded for word in ("tcmalloc", "jemalloc", "mimalloc"))
        or "mmap_max" in os.environ.get("GLIBC_TUNABLES", "")
        or "MALLOC_MMAP_MAX_" in os.environ
    )
    glibc = name == "glibc" and sys.platform == "linux"
    by = "environment" if tuned else "darkroom" if glibc and is_wanted() else None
    if glibc and by is None:
        problems.append(
            Problem(
                "DARKROOM_ACCELERATE=0: operations take PyTorch's way, and glibc gives freed "
                "memory back at once, which costs large models 1.2 to 1.5 x on a CPU",
                f"unset DARKROOM_ACCELERATE, or export {TUNING}",
            )
        )
    return {"libc": name or "unknown", "keeps_freed_memory": by is not None, "set_by": by}
