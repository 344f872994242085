"""DDPM, the loop that began it: a network on pixels, no text, a thousand small steps.

python examples/unconditional.py --model google/ddpm-cat-256 --every 50

The model is a folder with a UNet2DModel at its root, and a scheduler_config.json beside it.
"""

from pathlib import Path

import torch
import typer

import darkroom as dr
from darkroom.diffusion.noise import NoiseSource
from darkroom.diffusion.samplers.ancestral import ddpm
from darkroom.images import to_pictures


@torch.no_grad()
def main(
    model: str = "google/ddpm-cat-256",
    out: Path = Path("pictures"),
    steps: int = 1000,
    every: int = 50,
    seed: int = 0,
) -> None:
    loaded = dr.load(model)
    out.mkdir(parents=True, exist_ok=True)
    levels = loaded.sampling.levels(steps, "ddpm")
    channels = loaded.unet.config.in_channels
    device = next(loaded.unet.parameters()).device
    noise = NoiseSource([seed], (channels, *loaded.settings["size"]), device)

    def denoise(x, sigma):
        return loaded.denoise(x, sigma, timestep=levels.timestep(sigma))

    start = levels.initial_scale * noise.fresh()
    for step in ddpm(denoise, start, levels, noise, **loaded.sampling.options("ddpm")):
        if step.index % every == 0 or step.index == len(levels.timesteps) - 1:
            image = step.denoised.expand(-1, 3, -1, -1)  # grey pictures have one channel
            to_pictures(image)[0].save(out / f"unconditional_{step.index:04d}.png")
            print(f"step {step.index + 1} of {len(levels.timesteps)}, sigma {step.sigma:.3f}")
    to_pictures(step.x.expand(-1, 3, -1, -1))[0].save(out / "unconditional.png")


if __name__ == "__main__":
    typer.run(main)
