"""Watch a picture appear: the estimate of the finished picture, every few steps.

python examples/step_by_step.py --model emoji --prompt "red apple" --every 4
"""

from pathlib import Path

import typer

import darkroom as dr
from darkroom.generation.preview import preview
from darkroom.images import grid


def main(
    model: str = "emoji",
    prompt: str = "red apple",
    out: Path = Path("pictures"),
    steps: int = 20,
    every: int = 4,
    seed: int = 7,
) -> None:
    loaded = dr.load(model)
    out.mkdir(parents=True, exist_ok=True)
    guidance = dr.Guidance(loaded.settings.get("guidance", 7.5))
    run = dr.generate(loaded, prompt, guidance, seeds=[seed], steps=steps)
    frames = []
    for step in run:
        if step.index % every == 0 or step.index == len(run) - 1:
            # decoded by the model's own autoencoder; without it: one pixel per latent, at once
            frames += preview(loaded, step.denoised, loaded.autoencoder)
            frames[-1].save(out / f"step_{step.index:03d}.png")
            print(f"step {step.index + 1} of {len(run)}, sigma {step.sigma:.3f}")
    grid(frames).save(out / "step_by_step.png")


if __name__ == "__main__":
    typer.run(main)
