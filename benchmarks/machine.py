"""What a figure was measured on, and where figures are written."""

import json
import os
import platform
import re
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from darkroom import machine as here

RESULTS = Path(__file__).parent / "results"


def describe(threads: int | None = None) -> dict[str, Any]:
    """The machine and the versions, JSON-ready."""
    affinity, known = getattr(os, "sched_getaffinity", None), here.memory()
    packages = {}
    for name in ("torch", "diffusers", "transformers", "accelerate", "safetensors"):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = "absent"
    return {
        "processor": processor(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "memory_gb": round(known.total / 2**30, 1) if known else 0.0,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": packages,
        "threads": threads,
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def processor() -> str:
    """The processor's name and its widest vector instructions."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return here.processor()
    flags = set((re.search(r"flags\s*: (.+)", text) or ["", ""])[1].split())
    wide = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "amx_tile") if flag in flags]
    return f"{here.processor()} ({', '.join(wide)})"


def line(machine: dict[str, Any]) -> str:
    """One sentence for the head of a table."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    threads = f", {machine['threads']} threads" if machine["threads"] else ""
    return (
        f"{machine['processor']}, {machine['cores']} cores{threads}, {machine['memory_gb']} GB, "
        f"{machine['system']}, Python {machine['python']}, {versions}; "
        f"load before the run {machine['load_before']}."
    )


def slug(machine: dict[str, Any]) -> str:
    """The machine as a part of a file name."""
    name = re.sub(r"\(.*", "", machine["processor"])
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return f"{words}-{machine['cores']}-cores"


def write(folder: Path, name: str, fields: dict[str, Any], markdown: str) -> list[Path]:
    """``<date>-<name>.json`` and ``.md``; the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{date.today().isoformat()}-{name}"
    paths = [stem.with_suffix(".json"), stem.with_suffix(".md")]
    paths[0].write_text(json.dumps(fields, indent=1) + "\n", "utf-8")
    paths[1].write_text(markdown.rstrip() + "\n", "utf-8")
    return paths
