"""Train, be killed with -9 at random moments, go on; prints what happened as JSON.

``python killed_run.py FOLDER KILLS SEED``: one process imports torch and forks each attempt, so
that an attempt takes no time but its own. Saving takes most of it.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn

from darkroom.recipes.runs import Run
from darkroom.training.fit import FitOptions, Training

STEPS = 60


def attempt(folder: Path, losses: Path) -> None:
    """Train to the end, adding "step loss" to a file with each step."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(64, 2048), nn.BatchNorm1d(2048), nn.SiLU(), nn.Dropout(0.1), nn.Linear(2048, 64)
    )
    options = FitOptions(steps=STEPS, batch=8, lr=1e-2, warmup=5, ema=0.9, device="cpu")
    training = Training(model, options)
    run = Run(folder, "killed", options, training, save_every=2)

    def loss(draw):
        x = draw.share(torch.randn(8, 64, generator=draw.generator))
        return (model(x) - x).square().mean()

    with losses.open("a") as file:
        for step in run.steps(loss):
            if run.due(10):
                training.plateau(step.loss)
                run.note(lowered=training.rate)
            file.write(f"{step.index} {step.loss.hex()}\n")
            file.flush()


def forked(folder: Path, losses: Path) -> int:
    """An attempt in a process of its own; returns its number."""
    if child := os.fork():
        return child
    try:
        attempt(folder, losses)
        os._exit(0)
    except BaseException as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        os._exit(1)


def main(folder: Path, kills: int, seed: int) -> None:
    torch.set_num_threads(1)
    torch.optim.AdamW([nn.Parameter(torch.zeros(1))], fused=True)  # imports much, once
    started = time.monotonic()
    assert os.waitpid(forked(folder / "whole", folder / "whole.txt"), 0)[1] == 0
    whole = dict(line.split() for line in (folder / "whole.txt").read_text().splitlines())
    pace = time.monotonic() - started
    state = (folder / "whole" / "state.safetensors").read_bytes()
    chance = random.Random(seed)
    told = {"steps": len(whole), "kills": 0, "leftovers": 0, "runs": 0, "different": 0, "failed": 0}
    while told["kills"] < kills:
        told["runs"] += 1
        here, losses = folder / f"run{told['runs']}", folder / f"run{told['runs']}.txt"
        while True:
            child = forked(here, losses)
            deadline, ended = time.monotonic() + chance.uniform(0, pace / 3), (0, 0)
            aimed = told["kills"] % 2 == 1  # then wait on for a save that is under way
            while not ended[0]:
                ended = os.waitpid(child, os.WNOHANG)
                due = time.monotonic() > deadline and told["kills"] < kills
                if due and (not aimed or list(here.glob(".state*.part"))):
                    break
                time.sleep(0.0005)
            if ended[0]:
                told["failed"] += ended[1] != 0
                break
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            told["kills"] += 1
            told["leftovers"] += bool(list(here.glob(".*.part")))
        found = [line.split() for line in losses.read_text().splitlines() if line.count(" ") == 1]
        told["different"] += sum(whole[step] != loss for step, loss in found)
        told["different"] += {step for step, _ in found} != set(whole)
        told["different"] += (here / "state.safetensors").read_bytes() != state
        told["different"] += bool(list(here.glob(".*.part")))
        rows = [json.loads(line) for line in (here / "log.jsonl").read_text().splitlines()]
        kept = [row["step"] for row in rows if "mean_loss" in row]
        told["different"] += kept != [20, 40, 60]
        told["different"] += [r["step"] for r in rows if "lowered" in r] != [10, 20, 30, 40, 50, 60]
    told["seconds"] = round(time.monotonic() - started)
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
