"""Digits at increasing timesteps: the forward process, which needs no network (chapter 16).

python examples/figures/corruption.py data/mnist
"""

from pathlib import Path

import torch
import typer

from darkroom.diffusion.schedule import NoiseSchedule
from darkroom.images import labelled_grid, to_pictures
from darkroom.training.data import idx

TIMES = (0, 50, 100, 200, 300, 400, 500, 700, 999)


def main(data: Path, out: Path = Path("pictures"), digits: int = 5, seed: int = 0) -> None:
    out.mkdir(parents=True, exist_ok=True)
    images, schedule = idx(data, train=False), NoiseSchedule.linear()
    clean = images.pixels[:digits].float() / 127.5 - 1  # (N, 1, 28, 28) in [-1, 1]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    tiles = []
    for i in range(len(clean)):
        for t in TIMES:
            share = schedule.alpha_bar(t)
            x = share**0.5 * clean[i] + (1 - share) ** 0.5 * noise[i]
            tiles += to_pictures(x.expand(1, 3, -1, -1))
    labels = [str(int(label)) for label in images.labels[:digits]]
    titles = [f"t = {t}" for t in TIMES]
    picture = labelled_grid(tiles, len(TIMES), titles=titles, rows=labels, scale=2)
    picture.save(out / "corruption.png")
    print(f"{len(clean)} digits at {len(TIMES)} timesteps: {out / 'corruption.png'}")


if __name__ == "__main__":
    typer.run(main)
