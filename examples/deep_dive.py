"""Stable Diffusion's sampling loop by hand: each part is called right here.

python examples/deep_dive.py --model stable-diffusion-v1-5 --prompt "a watercolor of an otter"
"""

from pathlib import Path

import torch
import typer

import darkroom as dr
from darkroom.diffusion.noise import NoiseSource
from darkroom.diffusion.samplers.linear_multistep import lms
from darkroom.images import to_pictures


@torch.no_grad()
def main(model: str = "emoji", prompt: str = "otter", out: Path = Path("pictures")) -> None:
    parts = dr.load(model, dtype="float32", device="cpu")
    tower, vae, guide = parts.text_encoder.towers[0], parts.autoencoder, parts.prediction
    words, length = tower.tokenizer, tower.model.config.positions

    def encode(text):
        ids = [words.bos, *words.encode(text)[: length - 2], words.eos]
        return tower.model(torch.tensor([ids + [words.pad] * (length - len(ids))])).last

    text = torch.cat((encode(""), encode(prompt)))  # (2, S, C)
    levels = parts.sampling.levels(30, "lms")
    height, width = parts.settings.get("size", (512, 512))
    noise = NoiseSource([32], (vae.channels, height // vae.factor, width // vae.factor))

    def denoise(x, sigma):
        both, t = torch.cat((x, x)), torch.full((2,), levels.timestep(sigma))
        output = parts.unet(guide.network_input(both, sigma), t, text)
        without, asked = guide.denoised(both, output, sigma).chunk(2)
        return without + 7.5 * (asked - without)

    *_, last = lms(denoise, levels.initial_scale * noise.fresh(), levels, noise)
    out.mkdir(parents=True, exist_ok=True)
    to_pictures(vae.decode(last.x))[0].save(out / "deep_dive.png")


if __name__ == "__main__":
    typer.run(main)
