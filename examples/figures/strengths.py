"""From picture to picture at several strengths: how much of the first one is left (chapter 17).

python examples/figures/strengths.py --image photo.png --prompt "green apple"
"""

from pathlib import Path

import typer

import darkroom as dr
from darkroom.images import labelled_grid, open_image


def main(
    model: str = "emoji",
    out: Path = Path("pictures"),
    prompt: str = "green apple",
    image: Path | None = None,
    first: str = "red apple",
    strengths: list[float] = [0.2, 0.4, 0.6, 0.8, 1.0],  # noqa: B006
    steps: int = 20,
    seed: int = 7,
) -> None:
    """Without an image, ``first`` is drawn and taken for it."""
    loaded = dr.load(model)
    out.mkdir(parents=True, exist_ok=True)
    guidance = dr.Guidance(loaded.settings.get("guidance", 7.5))
    if image is None:
        start = dr.develop(loaded, first, guidance, seeds=[seed], steps=steps)[0].image
    else:
        start = open_image(image)
    tiles = [start]
    for strength in strengths:
        features = guidance, dr.ImageToImage(start, strength)
        run = dr.generate(loaded, prompt, *features, seeds=[seed + 1], steps=steps)
        tiles.append(run.pictures()[0].image)
        print(f"strength {strength:g}: {len(run)} of {steps} steps")
    titles = ["the picture", *(f"strength {strength:g}" for strength in strengths)]
    labelled_grid(tiles, len(tiles), titles=titles).save(out / "strengths.png")


if __name__ == "__main__":
    typer.run(main)
