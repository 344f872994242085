"""The same seeds at several guidance scales: from ignoring the prompt to overdoing it.

python examples/figures/guidance_scales.py --prompt "red apple"
"""

from pathlib import Path

import typer

import darkroom as dr
from darkroom.images import labelled_grid


def main(
    model: str = "emoji",
    out: Path = Path("pictures"),
    prompts: list[str] = ["red apple", "a cat on a yellow background", "rocket"],  # noqa: B006
    scales: list[float] = [1.0, 2.0, 4.0, 7.5, 15.0],  # noqa: B006
    steps: int = 15,
    seed: int = 7,
) -> None:
    loaded = dr.load(model)
    out.mkdir(parents=True, exist_ok=True)
    tiles = []
    for prompt in prompts:
        for scale in scales:
            guidance = dr.Guidance(scale)
            tiles.append(dr.develop(loaded, prompt, guidance, seeds=[seed], steps=steps)[0].image)
        print(f"{prompt!r} at {', '.join(f'{scale:g}' for scale in scales)}")
    titles = [f"scale {scale:g}" for scale in scales]
    picture = labelled_grid(tiles, len(scales), titles=titles, rows=prompts)
    picture.save(out / "guidance_scales.png")


if __name__ == "__main__":
    typer.run(main)
