"""Publish what the diffusion recipes reached: figures from the folders of their runs, pictures.

python benchmarks/digits.py RUNS --sweep

RUNS holds digit-classifier, mnist-conditional, mnist-book, mnist-conditional-book and cifar10, or
some of them, as ``darkroom train`` left them.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import machine
import torch
import typer

import darkroom as dr
from darkroom.charts import line_chart
from darkroom.config import from_dict
from darkroom.recipes.digit_classifier import judge, load_classifier
from darkroom.recipes.pixel_diffusion import Config, noise_curve, read_images, samples

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
RUNS = {  # the pictures of each run that are shown
    "digit-classifier": (),
    "mnist-conditional": ("samples", "noised"),
    "mnist-book": ("samples",),
    "mnist-conditional-book": ("one-step", "progressive"),
    "cifar10": ("samples",),
}
SAYS = (
    "Each run had one core of two; seconds are of the clock, with the evaluations of the held-out",
    "loss in them. `read as asked`: the share of drawn digits that digit-classifier reads as the",
    "digit asked for. `frechet`: distance of the drawn digits to the 10,000 test digits in that",
    "classifier's features; `frechet real`: of as many real training digits; `frechet halves`:",
    "between two halves of the test digits. Losses are means of 20 steps, `running loss` of 30.",
    "",
    "![how much of the picture is left](../../docs/pictures/mnist-noise-curve.svg)",
)
BAND = (0.028, 0.045)  # of the book's loss
MEAN = 30  # steps
SWEEP = [("ddpm", 25, scale) for scale in (1.0, 2.0, 4.0)]
SWEEP += [(sampler, 25, 2.0) for sampler in ("ddim", "euler_ancestral", "dpmpp_2m")]


def figures(folder: Path) -> dict[str, Any]:
    """What a run's log says."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    facts = json.loads((folder / "run.json").read_text())
    logged = [row for row in rows if "mean_loss" in row]
    seconds = before = 0.0
    for row in logged:  # the clock of a resumed run starts anew
        seconds += row["seconds"] - (before if row["seconds"] > before else 0.0)
        before = row["seconds"]
    fit = facts["config"]["fit"]
    found: dict[str, Any] = {
        "steps": logged[-1]["step"],
        "batch": fit["batch"],
        "seconds": round(seconds),
        "samples_per_second": round(logged[-1]["step"] * fit["batch"] / max(seconds, 0.1), 1),
        "first_loss": logged[0]["mean_loss"],
        "last_loss": logged[-1]["mean_loss"],
    }
    for name in ("accuracy", "validation_loss"):
        if values := [row[name] for row in rows if name in row]:
            found[name] = values[-1]
    if running := [(row["step"], row["running_loss"]) for row in rows if "running_loss" in row]:
        inside = [step for step, loss in running if BAND[0] <= loss <= BAND[1]]
        found |= {"running_loss": running[-1][1], "in_band_from_step": min(inside, default=None)}
        found["epochs"] = found["steps"] / fit["period"]
    if (judged := folder / "judged.json").is_file():
        drawn = {name: facts["config"][name] for name in ("sampler", "guidance", "samples")}
        drawn["sampling_steps"] = facts["config"]["steps"]
        found |= drawn | json.loads(judged.read_text())
    return found


def sweep(runs: Path, data: Path, count: int) -> list[dict[str, Any]]:
    """The same digits with other samplers and other guidance, judged alike."""
    folder = runs / "mnist-conditional"
    said = json.loads((folder / "run.json").read_text())["config"]
    config = from_dict(Config, {name: value for name, value in said.items() if name != "mode"})
    model = dr.load(folder / "model")
    classifier = load_classifier(runs / "digit-classifier" / "classifier.safetensors")
    images, held_out = read_images(data)
    wanted = torch.arange(count) % len(images.classes)
    rows = []
    for sampler, steps, guidance in SWEEP:
        tried = {"sampler": sampler, "steps": steps, "guidance": guidance}
        settings = replace(config, **tried)
        drawn = samples(settings, model, images, list(range(5000, 5000 + count)), wanted)
        found = judge(classifier, drawn / 2 + 0.5, wanted, images, held_out)
        rows.append({**tried, **found})
        print(rows[-1], flush=True)
    return rows


def chart(runs: Path, name: str) -> str:
    """The loss of a run: SVG."""
    rows = [json.loads(line) for line in (runs / name / "log.jsonl").read_text().splitlines()]
    curves = {
        key: [(row["step"], row[key]) for row in rows if key in row]
        for key in ("mean_loss", "validation_loss", "running_loss")
    }
    curves = {key: points for key, points in curves.items() if points}
    return line_chart(curves, title=f"loss of {name}", x="step", log=True)


def page(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    lines = ["# Diffusion from scratch on MNIST and CIFAR-10", "", machine.line(report["machine"])]
    lines += ["", *SAYS, ""]
    for name, found in report["runs"].items():
        lines += [f"## {name}", "", "| | |", "|---|---|"]
        lines += [f"| {key.replace('_', ' ')} | {_shown(value)} |" for key, value in found.items()]
        shown = [f"{p}.png" for p in RUNS[name]] + ["loss.svg"] * bool(RUNS[name])
        lines += ["", *(f"![{p}](../../docs/pictures/{name}-{p})" for p in shown), ""]
    if rows := report["sweep"]:
        count = report["sweep_samples"]
        lines += [f"## Samplers and guidance, {count} digits each", ""]
        lines += ["| " + " | ".join(key.replace("_", " ") for key in rows[0]) + " |"]
        lines += ["|" + "---|" * len(rows[0])]
        lines += ["| " + " | ".join(_shown(v) for v in row.values()) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def main(
    runs: Path,
    data: Path = Path("../shared/data/mnist"),
    try_samplers: bool = typer.Option(False, "--sweep"),
    count: int = 200,
) -> None:
    present = [name for name in RUNS if (runs / name / "run.json").is_file()]
    report: dict[str, Any] = {
        "machine": machine.describe(1),
        "runs": {name: figures(runs / name) for name in present},
        "sweep_samples": count,
        "sweep": sweep(runs, data, count) if try_samplers else [],
    }
    for name in present:
        for picture in RUNS[name]:
            shutil.copy(runs / name / f"{picture}.png", PICTURES / f"{name}-{picture}.png")
        if RUNS[name]:
            (PICTURES / f"{name}-loss.svg").write_text(chart(runs, name))
    if "mnist-conditional" in present:
        schedule = dr.load(runs / "mnist-conditional" / "model").schedule
        (PICTURES / "mnist-noise-curve.svg").write_text(noise_curve(schedule))
    machine.write(machine.RESULTS, "mnist", report, page(report))


if __name__ == "__main__":
    typer.run(main)
