"""Every sampler at several numbers of steps, from the same noise.

python examples/figures/samplers.py --prompt "red apple"
"""

from pathlib import Path

import typer

import darkroom as dr
from darkroom.images import labelled_grid
from darkroom.names import SAMPLER_NAMES


def main(
    model: str = "emoji",
    out: Path = Path("pictures"),
    prompt: str = "red apple",
    steps: list[int] = [4, 8, 16, 32],  # noqa: B006
    seed: int = 7,
) -> None:
    loaded = dr.load(model)
    out.mkdir(parents=True, exist_ok=True)
    guidance = dr.Guidance(loaded.settings.get("guidance", 7.5))
    tiles = []
    for sampler in SAMPLER_NAMES:
        runs = [
            dr.generate(loaded, prompt, guidance, seeds=[seed], steps=n, sampler=sampler)
            for n in steps
        ]
        tiles += [run.pictures()[0].image for run in runs]
        print(f"{sampler:16} calls of the network: {', '.join(str(len(run)) for run in runs)}")
    titles = [f"{n} steps" for n in steps]
    picture = labelled_grid(tiles, len(steps), titles=titles, rows=SAMPLER_NAMES)
    picture.save(out / "samplers.png")


if __name__ == "__main__":
    typer.run(main)
