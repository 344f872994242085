"""What the network is given at each step, and the finished picture that it believes in.

python examples/figures/estimates.py --prompt "red apple" --steps 12 --every 2
"""

from pathlib import Path

import torch
import typer

import darkroom as dr
from darkroom.images import labelled_grid, to_pictures


@torch.no_grad()
def main(
    model: str = "emoji",
    out: Path = Path("pictures"),
    prompt: str = "red apple",
    steps: int = 12,
    every: int = 2,
    seed: int = 7,
) -> None:
    loaded = dr.load(model)
    out.mkdir(parents=True, exist_ok=True)
    guidance = dr.Guidance(loaded.settings.get("guidance", 7.5))
    given, believed, titles = [], [], []
    for step in dr.generate(loaded, prompt, guidance, seeds=[seed], steps=steps, sampler="euler"):
        if step.index % every == 0:
            weight = next(loaded.autoencoder.parameters())
            x = step.x / (1 + step.sigma**2) ** 0.5  # as the decoder knows latents: unit variance
            given += to_pictures(loaded.autoencoder.decode(x.to(weight)))
            believed += to_pictures(loaded.autoencoder.decode(step.denoised.to(weight)))
            titles.append(f"sigma {step.sigma:.2f}")
            print(f"step {step.index + 1}: {titles[-1]}")
    rows = ["after the step", "estimate"]
    picture = labelled_grid(given + believed, len(titles), titles=titles, rows=rows)
    picture.save(out / "estimates.png")


if __name__ == "__main__":
    typer.run(main)
