"""Darkroom beside diffusers, on this machine, in one run.

python benchmarks/run.py            everything, at the size of Stable Diffusion 1.5: some 25 minutes
python benchmarks/run.py --only import,text
python benchmarks/run.py --tiny     does it work? a minute

Contenders take turns, each in a process of its own, the order alternating; medians count. Darkroom
is as ``load`` opens it; "plain" is with ``accelerate=False``. diffusers is as its users run it, and
once more with the C library told to keep freed memory, as Darkroom tells it. What is measured is
written at once to results/<date>-<instructions>-<machine>.md and .json; a later run of that day
replaces only the parts it measures. On one thread CPU seconds count, which other programs on the
machine disturb least.
"""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checkpoint
import contenders
import machine
import numpy as np
import torch
import typer

HERE = Path(__file__).parent
NAMES = ("diffusers", "darkroom")
KEPT, PLAIN = "diffusers, memory kept", "darkroom, plain"
JOBS = {
    "text": "encode a prompt and a negative prompt",
    "unet1": "one U-Net step, batch 1",
    "unet2": "one U-Net step, batch 2",
    "inpaint": "one inpainting step: 9 input channels, batch 2",
    "control": "one ControlNet step: the network and the U-Net, batch 2",
    "decode": "VAE decode",
    "picture": f"a whole picture, 4 steps, guidance {contenders.SCALE:g}",
}
PARTS = ("import", "load", *JOBS, "memory")
LIGHT = 5  # light jobs are repeated this many times as often

IMPORTS = {
    "import torch": "",
    "diffusers": "from diffusers import StableDiffusionPipeline",
    "darkroom": "import darkroom",
    "darkroom, all public names": "import darkroom as d\nfor name in d.__all__: getattr(d, name)",
}

Times = dict[str, list[tuple[float, float]]]  # by contender: (wall, CPU) seconds of each run


class Bench:
    def __init__(
        self, folder: Path, tiny: bool, threads: int, repeats: int, others: bool, plain: bool
    ) -> None:
        self.paths = checkpoint.folders(folder, tiny)
        sizes = checkpoint.TINY if tiny else checkpoint.TRUE
        self.side, self.width = sizes["unet"]["sample_size"], sizes["text"]["hidden_size"]
        self.folder = folder
        self.threads, self.repeats, self.steps = threads, repeats, 4
        self.others, self.plain = others, plain

    def run(self, part: str) -> dict[str, Any]:
        if part == "import":
            return self.imports()
        if part == "load":
            return self.loads()
        if part == "memory":
            return self.memory()
        return self.job(part)

    # --- parts

    def imports(self) -> dict[str, Any]:
        """CPU seconds on top of ``import torch``, in fresh processes."""
        times: Times = {name: [] for name in IMPORTS}
        for _ in range(max(self.repeats, 3)):
            for name, statement in IMPORTS.items():
                started = "" if name == "import torch" else "import torch\n"
                code = (
                    f"import time\n{started}w, c = time.perf_counter(), time.process_time()\n"
                    f"{statement or 'import torch'}\n"
                    "print(time.perf_counter() - w, time.process_time() - c)"
                )
                done = self.process("-c", code)
                wall, cpu = map(float, done.split())
                times[name].append((wall, cpu))
        return {"import": summary(times, cpu_counts=True)}

    def loads(self) -> dict[str, Any]:
        """Opening a folder into float32; then again with every weight read once."""
        found = {}
        for kind in self.paths:
            for touched in (False, True):
                task = f"load {kind}{' touched' if touched else ''}"
                suffix = ", every weight read" if touched else ""
                # the first turn warms up: imports, the system's file cache
                found[f"load {kind} as float32{suffix}"] = self.turns(NAMES, task, self.repeats)[0]
        return found

    def job(self, task: str) -> dict[str, Any]:
        names = (NAMES[0], *((KEPT,) if self.others else ()), NAMES[1])
        if self.plain:
            names = (*names, PLAIN)
        repeats = self.repeats * (LIGHT if task == "text" else 1)
        found, results = self.turns(names, task, repeats)
        found["psnr"] = {name: agreement(results["diffusers"], results[name]) for name in names[1:]}
        return {JOBS[task]: found}

    def turns(
        self, names: tuple[str, ...], task: str, repeats: int
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Times of each, in a process of its own, after a first turn; and that one's results."""
        times: Times = {name: [] for name in names}
        results: dict[str, np.ndarray] = {}
        with contextlib.ExitStack() as stack:
            crew = {name: stack.enter_context(self.worker(name)) for name in names}
            for turn in range(repeats + 1):
                for name in ordered(names, turn):
                    file = self.folder / "result.npy"
                    wall, cpu = asked(crew[name], f"{task}\t{'' if turn else file}")
                    if turn:
                        times[name].append((wall, cpu))
                    elif file.exists():
                        results[name] = np.load(file)
                        file.unlink()
        return summary(times, cpu_counts=self.threads == 1), results

    @contextlib.contextmanager
    def worker(self, name: str) -> Iterator[subprocess.Popen[str]]:
        numbers = map(str, (self.side, self.width, self.steps, self.threads))
        paths = [str(self.paths["fp32"]), str(self.paths["fp16"])]
        command = [sys.executable, str(HERE / "worker.py"), name, *paths, *numbers]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=self.environment(),
        )
        try:
            yield process
        finally:
            process.communicate()

    def memory(self) -> dict[str, Any]:
        """The high-water mark of processes that do one thing each."""
        found = {}
        tasks = {"import": "fp32", "load fp32": "fp32", "load fp16 as float32": "fp16"}
        for task, kind in {**tasks, **dict.fromkeys(JOBS, "fp32")}.items():
            peaks: dict[str, Any] = {}
            for name in NAMES:
                numbers = (self.side, self.width, self.steps, self.threads)
                probe = str(HERE / "probe.py")
                said = self.process(probe, name, task, str(self.paths[kind]), *map(str, numbers))
                peaks[name] = json.loads(said.splitlines()[-1])["peak"]
            peaks["ratio"] = peaks["diffusers"] / peaks["darkroom"]
            found[JOBS.get(task, task)] = peaks
        return found

    # --- the means

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "OMP_NUM_THREADS": str(self.threads),
            "HF_HUB_OFFLINE": "1",
            "PYTHONWARNINGS": "ignore",
        }

    def process(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, env=self.environment()
        )
        if done.returncode:
            raise SystemExit(f"{' '.join(arguments)[:200]} failed:\n{done.stderr[-3000:]}")
        return done.stdout


def asked(worker: "subprocess.Popen[str]", line: str) -> tuple[float, float]:
    """Have a worker do something: wall and CPU seconds."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(f"{line}\n")
    worker.stdin.flush()
    said = worker.stdout.readline()
    if not said:
        raise SystemExit(f"a worker ended at {line!r}: see what it said above")
    wall, cpu = map(float, said.split())
    return wall, cpu


def ordered(names: tuple[str, ...], turn: int) -> tuple[str, ...]:
    """Who goes first alternates."""
    return names if turn % 2 else names[::-1]


def summary(times: Times, cpu_counts: bool = False) -> dict[str, Any]:
    """Medians, extremes and ratios to diffusers, as users run it and with memory kept."""
    found: dict[str, Any] = {}
    for name, runs in times.items():
        walls, cpus = [wall for wall, _ in runs], [cpu for _, cpu in runs]
        found[name] = {
            "median": statistics.median(cpus if cpu_counts else walls),
            "least": min(cpus if cpu_counts else walls),
            "most": max(cpus if cpu_counts else walls),
            "cpu": statistics.median(cpus),
            "runs": len(runs),
        }
    reference, kept = found["diffusers"], found.get(KEPT)
    for entry in found.values():
        if kept is not None:
            entry["ratio, memory kept"] = kept["median"] / max(entry["median"], 1e-4)
        entry["ratio"] = reference["median"] / max(entry["median"], 1e-4)
        entry["ratio of CPU time"] = reference["cpu"] / max(entry["cpu"], 1e-4)
    return found


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR in dB between two results, over the range of the first; 999 = the same bits."""
    error = float(((a.astype(np.float64) - b) ** 2).mean())
    span = 255.0 if a.ndim == 3 and a.max() > 2 else float(a.max() - a.min())
    return 999.0 if error == 0 else round(10 * np.log10(span**2 / error), 1)


def markdown(fields: dict[str, Any]) -> str:
    lines = [
        f"# Darkroom beside diffusers, {fields['size']}",
        "",
        machine.line(fields["machine"]) + f" Instructions: {fields['machine']['instructions']}.",
        "",
        "Contenders take turns in one run, the order alternating; medians (least to most). "
        "float32, eager, random weights of the true sizes; each in a process of its own, Darkroom "
        "as `load` opens it. Ratio: diffusers' time over ours, above 1 is quicker; of it as users "
        "run it, and with the C library told to keep freed memory, as Darkroom tells it. PSNR: our "
        "result against diffusers' for the same input (999: the same bits). Import: CPU seconds on "
        "top of `import torch`. Load: of the machine, before. On one thread all seconds are of CPU "
        "time.",
        "",
        "| | who | seconds | ratio | ratio, memory kept | ratio of CPU time | PSNR, dB | runs "
        "| load |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for label in sorted(fields["times"], key=rank):
        entry = fields["times"][label]
        for name, value in entry.items():
            if name in ("psnr", "load"):
                continue
            psnr = entry.get("psnr", {}).get(name, "")
            one = name in ("diffusers", "import torch")
            kept = value.get("ratio, memory kept")
            shown = ["", "", ""] if one else [
                f"**{times_text(value['ratio'])}**",
                "" if kept is None or name == KEPT else f"**{times_text(kept)}**",
                times_text(value["ratio of CPU time"]),
            ]  # fmt: skip
            seconds = f"{value['median']:.3f} ({value['least']:.3f} to {value['most']:.3f})"
            lines.append(
                f"| {label} | {name} | {seconds} | {' | '.join(shown)} | {psnr} | "
                f"{value['runs']} | {entry.get('load', '')} |"
            )
    if fields.get("memory"):
        lines += [
            "",
            "The most memory of a process that does one thing, in MB (resident, mapped files "
            "among it):",
            "",
            "| | diffusers | darkroom | ratio |",
            "|---|---|---|---|",
        ]
        for label, entry in fields["memory"].items():
            if label == "load":
                continue
            megabytes = [f"{entry[name] / 2**20:,.0f}" for name in NAMES]
            lines.append(f"| {label} | {' | '.join(megabytes)} | **{entry['ratio']:.2f}** |")
    return "\n".join(lines)


def rank(label: str) -> int:
    """Where a label stands in the table."""
    jobs = list(JOBS.values())
    return jobs.index(label) + 2 if label in jobs else int(label.startswith("load"))


def times_text(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 100 else "above 100"


def main(
    only: str | None = typer.Option(None, help=f"Comma-separated: {', '.join(PARTS)}."),
    repeats: int = 3,
    threads: int = 2,
    tiny: bool = typer.Option(False, "--tiny", help="Small sizes: does the script work?"),
    others: bool = typer.Option(True, help="Measure diffusers with memory kept, too."),
    plain: bool = typer.Option(True, help="Measure Darkroom without acceleration, too."),
    folder: Path | None = None,
    out: Path = machine.RESULTS,
) -> None:
    """Measure Darkroom beside diffusers.

    --folder keeps the random checkpoint (6.4 GB) for the next run; a temporary one by default.
    """
    wanted = chosen(only)
    torch.set_num_threads(threads)
    facts = machine.describe(threads)
    size = "tiny sizes" if tiny else "the size of Stable Diffusion 1.5, 512x512"
    instructions = torch.backends.cpu.get_cpu_capability()
    name = f"{instructions.lower()}-{threads}-threads-{machine.slug(facts)}"
    name = f"{'tiny-' if tiny else ''}{name}"
    facts["instructions"] = instructions
    with tempfile.TemporaryDirectory() as temporary:
        place = folder or Path(temporary)
        place.mkdir(parents=True, exist_ok=True)
        bench = Bench(place, tiny, threads, repeats, others, plain)
        fields: dict[str, Any] = {"size": size, "machine": facts, "times": {}, "memory": {}}
        fields = earlier(out, name, fields)
        for part in wanted:
            load = machine.describe()["load_before"]
            print(f"{time.strftime('%H:%M:%S')} {part}", file=sys.stderr, flush=True)
            found = bench.run(part)
            if part == "memory":
                fields["memory"] = found
            else:
                fields["times"] |= {label: {**e, "load": load} for label, e in found.items()}
            text = markdown(fields)
            paths = machine.write(out, name, fields, text)
    print(text, *map(str, paths), sep="\n")


def chosen(only: str | None) -> tuple[str, ...]:
    """The names of parts, in their order."""
    asked = set(PARTS) if only is None else {word.strip() for word in only.split(",")}
    if asked - set(PARTS):
        unknown = ", ".join(sorted(asked - set(PARTS)))
        raise typer.BadParameter(f"{unknown}: expected some of {', '.join(PARTS)}")
    return tuple(part for part in PARTS if part in asked)


def earlier(out: Path, name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """What a run of today on this machine has measured already."""
    for path in out.glob(f"{time.strftime('%Y-%m-%d')}-{name}.json"):
        before = json.loads(path.read_text("utf-8"))
        return {**fields, "times": before["times"], "memory": before["memory"]}
    return fields


if __name__ == "__main__":
    typer.run(main)
