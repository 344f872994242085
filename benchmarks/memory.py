"""Peak memory of one picture of SD 1.5, 512x512, stage by stage, as users get it.

    python benchmarks/memory.py [--folder DIR] [--threads 2] [--steps 1]

Each run is a fresh process; what counts is VmHWM: all that was ever resident at once, Python, torch
and mapped files among it. "library" is ``dr.load`` and ``dr.develop``; "command" is ``darkroom
generate``; both with nothing else said. The checkpoint has the true sizes (4.27 GB in float32) and
random weights; one step is taken, because further ones need no more. "same bits": as the first
row of the same files. Low memory evaluates one conditioning at a time, which rounds otherwise.
"""

import argparse
import contextlib
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import machine

BAR = 3.9  # GB
CASES = ("fp32", "fp16")  # what the files hold; the run is in float32
DOORS = ("library", "command", "low-memory")  # the last is the command with that flag
STAGES = ("import", "load", "text", "network", "decoding")


def status(name: str) -> float:
    """GB of a line of /proc/self/status."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0]) * 1024 / 1e9


def library(folder: str, steps: int) -> dict[str, Any]:
    """A picture by way of ``dr``; the peak after each stage."""
    import darkroom as dr

    peaks = {"import": status("VmHWM")}
    model = dr.load(folder, device="cpu")
    peaks["load"] = status("VmHWM")
    generation = dr.generate(model, "a red fox", seeds=[7], steps=steps, size=(512, 512))
    peaks["text"] = status("VmHWM")
    for _ in generation:
        pass
    peaks["network"] = status("VmHWM")
    (picture,) = generation.pictures()
    peaks["decoding"] = status("VmHWM")
    print(json.dumps({"peaks": peaks, "sha256": sha256(picture.image)}))


def command(folder: str, steps: int, *more: str) -> None:
    """The same by way of the command line, in this process."""
    from PIL import Image

    from darkroom.app.cli import main

    with tempfile.TemporaryDirectory() as place:
        out = str(Path(place) / "fox.png")
        sys.argv = ["darkroom", "generate", "a red fox", "--model", folder, "--seed", "7"]
        sys.argv += ["--steps", str(steps), "--size", "512x512", "--dtype", "float32"]
        sys.argv += ["--device", "cpu", "--out", out, *more]
        with contextlib.suppress(SystemExit):
            main()
        print(json.dumps({"peaks": {"all": status("VmHWM")}, "sha256": sha256(Image.open(out))}))


def sha256(image: Any) -> str:
    return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()[:16]


def measure(door: str, folder: Path, threads: int, steps: int) -> dict[str, Any]:
    """What one fresh process says of itself."""
    words = [sys.executable, __file__, "--run", door, str(folder), str(threads), str(steps)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def run(door: str, folder: str, threads: int, steps: int) -> None:
    import torch

    torch.set_num_threads(threads)
    if door == "library":
        library(folder, steps)
    else:
        command(folder, steps, *(["--low-memory"] if door == "low-memory" else []))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="keeps the checkpoints (6.4 GB)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--out", type=Path, default=machine.RESULTS)
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        door, folder, *numbers = arguments.run
        run(door, folder, *map(int, numbers))
        return
    import checkpoint

    with tempfile.TemporaryDirectory() as place:
        folders = checkpoint.folders(arguments.folder or Path(place), tiny=False)
        found = {
            case: {
                door: measure(door, folders[case], arguments.threads, arguments.steps)
                for door in DOORS
            }
            for case in CASES
        }
    facts = machine.describe(arguments.threads)
    fields = {"machine": facts, "bar_gb": BAR, "steps": arguments.steps, "cases": found}
    text = markdown(fields)
    print(text, *machine.write(arguments.out, f"memory-{machine.slug(facts)}", fields, text))


def markdown(fields: dict[str, Any]) -> str:
    lines = [
        "# Peak memory of one picture of SD 1.5, 512x512, float32, on a CPU",
        "",
        machine.line(fields["machine"]),
        "",
        f"Fresh processes; VmHWM in GB, the bar is {fields['bar_gb']} GB. The weights are 4.27 GB.",
        "",
        "| files | door | import | load | text | network | decoding | peak | same bits |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case, doors in fields["cases"].items():
        first = next(iter(doors.values()))["sha256"]
        for door, result in doors.items():
            peaks = result["peaks"]
            stages = [f"{peaks[s]:.2f}" if s in peaks else "" for s in STAGES]
            same = "yes" if result["sha256"] == first else "no"
            cells = [case, door, *stages, f"**{max(peaks.values()):.2f}**", same]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
