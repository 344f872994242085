"""A picture, its latent channel by channel, and the picture that the latent decodes to.

python examples/figures/latents.py photo.png another.png
"""

import math
from pathlib import Path

import torch
import typer
from PIL import Image

import darkroom as dr
from darkroom.images import labelled_grid, open_image, to_pictures, to_tensor


@torch.no_grad()
def main(
    pictures: list[Path] = [],  # noqa: B006
    model: str = "emoji",
    out: Path = Path("pictures"),
    prompts: list[str] = ["red apple", "cat"],  # noqa: B006
) -> None:
    """Without pictures, ``prompts`` are drawn and taken for them."""
    loaded = dr.load(model)
    out.mkdir(parents=True, exist_ok=True)
    vae, size = loaded.autoencoder, loaded.settings.get("size", (512, 512))
    images = [open_image(path).resize(size[::-1]) for path in pictures]
    if not images:
        images = [dr.develop(loaded, prompt, seeds=[7], steps=12)[0].image for prompt in prompts]
    tiles = []
    for image in images:
        pixels = to_tensor(image).to(next(vae.parameters()))
        latents = vae.encode(pixels)
        decoded = vae.decode(latents)
        tiles += [image, *map(grey, latents[0].float()), *to_pictures(decoded)]
        error = (decoded - pixels).square().mean().item() / 4  # of values in [0, 1]
        psnr = -10 * math.log10(error)
        print(f"{pixels.numel()} numbers as {latents.numel()}, PSNR {psnr:.1f} dB")
    columns = vae.channels + 2
    titles = ["picture", *(f"channel {i}" for i in range(vae.channels)), "decoded"]
    enlarged = [tile.resize(size[::-1], Image.Resampling.NEAREST) for tile in tiles]
    labelled_grid(enlarged, columns, titles=titles).save(out / "latents.png")


def grey(channel: torch.Tensor) -> Image.Image:
    """-3 to 3 deviations as black to white."""
    return to_pictures((channel / 3).expand(1, 3, -1, -1))[0]


if __name__ == "__main__":
    typer.run(main)
