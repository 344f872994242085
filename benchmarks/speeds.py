"""Is what is chosen ever slower than PyTorch's own row? Every shape of SD 1.5, by the real clock.

OMP_NUM_THREADS=2 python benchmarks/speeds.py             two minutes, on a quiet machine
OMP_NUM_THREADS=1 python benchmarks/speeds.py             by CPU time, which others disturb least
ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 ... on AVX2

The rows are measured anew as a user's first picture measures them, into a cache of their own; then
each layer of the text tower, the U-Net and the VAE's decoder runs as it is opened by default and as
PyTorch has it, in turn. Two runs of PyTorch's row beside each other say what noise is. Ends with 1
if a shape takes another row than PyTorch's and is slower beyond it.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import torch
import typer

from darkroom.acceleration import keep_freed_memory
from darkroom.app.speeds import Operation, operations
from darkroom.ops import speeds
from darkroom.ops.attention import attend_measured, attend_torch

NOISE = 1.05  # beyond which, and beyond what PyTorch's row differs from itself, slower is slower
ROUNDS = 7  # of all contenders, undisturbed by other programs
LEAST_SECONDS, MOST_SECONDS = 0.1, 3.0  # of a shape


class Watched(speeds.Speeds):
    """Figures that remember which row was asked for last."""

    row = ""

    def quickest(self, operation: str, shape: tuple[int, ...], rows: Any) -> str:
        self.row = super().quickest(operation, shape, rows)
        return self.row


def calls(operation: Operation) -> dict[str, Callable[[], object]]:
    """What takes turns: PyTorch's row, what is chosen, PyTorch's row again."""
    layer, inputs = operation.ready()
    if layer is None:
        q, k, v = inputs
        plain, chosen = (lambda: attend_torch(q, k, v)), (lambda: attend_measured(q, k, v))
        return {"plain": plain, "chosen": chosen, "again": plain}
    quick = type(layer)
    slow = torch.nn.Linear if isinstance(layer, torch.nn.Linear) else torch.nn.Conv2d

    def run(kind: type[torch.nn.Module]) -> object:
        layer.__class__ = kind
        return layer(*inputs)

    return {"plain": lambda: run(slow), "chosen": lambda: run(quick), "again": lambda: run(slow)}


@torch.no_grad()
def compare(operation: Operation, figures: Watched, clock: Callable[[], float]) -> dict[str, Any]:
    """Least seconds of each; the choice is made before."""
    runs = calls(operation)
    figures.row = ""
    for run in runs.values():
        run()
    row = figures.row
    clean: dict[str, list[float]] = {name: [] for name in runs}
    disturbed: dict[str, list[float]] = {name: [] for name in runs}
    began, turn = time.perf_counter(), 0
    while time.perf_counter() - began < MOST_SECONDS and (
        min(map(len, clean.values())) < ROUNDS or time.perf_counter() - began < LEAST_SECONDS
    ):
        for name in runs if turn % 2 else list(runs)[::-1]:
            before, start = figures.interruptions(), clock()
            runs[name]()
            took = clock() - start
            quiet = figures.interruptions() == before
            (clean if quiet else disturbed)[name].append(took)
        turn += 1
    enough = min(map(len, clean.values())) >= 2
    least = {name: min(clean[name] if enough else clean[name] + disturbed[name]) for name in runs}
    if operation.layer is not None:
        operation.layer.to("meta")
    slowest_plain = max(least["plain"], least["again"])
    return {
        "operation": operation.name,
        "row": row,
        **least,
        "ratio": min(least["plain"], least["again"]) / least["chosen"],
        "undisturbed": min(map(len, clean.values())),
        "slower": row not in ("", "torch") and least["chosen"] > NOISE * slowest_plain,
    }


def markdown(fields: dict[str, Any]) -> str:
    rows = fields["operations"]
    slower = [row["operation"] for row in rows if row["slower"]]
    lines = [
        "# What is chosen beside PyTorch's own row, every shape of SD 1.5",
        "",
        machine.line(fields["machine"]),
        "",
        f"Instructions: {fields['conditions']['instructions']}, "
        f"{fields['conditions']['environment'] or 'as the processor has them'}. "
        f"By {fields['clock']}. Least of {ROUNDS} rounds or more, in turn; those that other "
        "programs disturbed do not count where two others are left. Finding the rows took "
        f"{fields['finding']:.1f} s in all, once. Ratio: the quicker of two runs of PyTorch's row "
        "over what is chosen. No row: too small to be measured, or PyTorch's is the only one.",
        "",
        f"{len(rows)} shapes; slower than PyTorch's beyond noise "
        f"({NOISE:g} x): **{', '.join(slower) or 'none'}**.",
        "",
        "| operation | row | PyTorch's, ms | again | chosen, ms | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        times = " | ".join(f"{1e3 * row[name]:.2f}" for name in ("plain", "again", "chosen"))
        lines.append(f"| {row['operation']} | {row['row']} | {times} | {row['ratio']:.2f} |")
    return "\n".join(lines)


def main(choices_only: bool = True, out: Path = machine.RESULTS) -> None:
    """Compare each shape that has a choice (or all of them), and write the table."""
    keep_freed_memory()
    facts = machine.describe(torch.get_num_threads())
    with tempfile.TemporaryDirectory() as home:
        single = torch.get_num_threads() == 1
        clock = time.process_time if single else time.perf_counter
        figures = Watched(Path(home))
        speeds.here = lambda: figures
        wanted = [each for each in operations() if each.has_choice or not choices_only]
        began = clock()
        for each in wanted:  # as a first picture does
            each.run()
        finding = clock() - began
        found = []
        for each in wanted:
            found.append(compare(each, figures, clock))
            print(f"{found[-1]['operation']}: {found[-1]['ratio']:.2f}", file=sys.stderr)
        conditions = speeds.conditions()
    fields = {
        "machine": facts,
        "conditions": conditions,
        "finding": finding,
        "clock": "CPU time" if single else "the clock on the wall",
        "operations": found,
    }
    setting = f"{conditions['instructions'].lower()}-{facts['threads']}-threads"
    name = f"speeds-{setting}-{machine.slug(facts)}"
    print(text := markdown(fields), *map(str, machine.write(out, name, fields, text)), sep="\n")
    raise typer.Exit(int(any(row["slower"] for row in found)))


if __name__ == "__main__":
    typer.run(main)
