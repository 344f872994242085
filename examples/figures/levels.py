"""Where the samplers walk: the noise levels that each visits in the same number of steps.

python examples/figures/levels.py --steps 20
"""

from pathlib import Path

import typer

import darkroom as dr
from darkroom.charts import line_chart
from darkroom.names import SAMPLER_NAMES, SPACING_NAMES


def main(model: str = "emoji", out: Path = Path("pictures"), steps: int = 20) -> None:
    out.mkdir(parents=True, exist_ok=True)
    sampling = dr.load(model, device="meta").sampling  # no weight is read

    def walk(sampler: str, spacing: str | None = None) -> list[tuple[float, float]]:
        sigmas = sampling.levels(steps, sampler, spacing).sigmas[:-1]  # the last is 0
        return [(i / (len(sigmas) - 1), sigma) for i, sigma in enumerate(sigmas)]

    samplers = {name: walk(name) for name in SAMPLER_NAMES}
    spacings = {name: walk("euler", name) for name in SPACING_NAMES}
    for name, levels in (samplers | spacings).items():
        print(f"{name:16} {len(levels):3} levels from {levels[0][1]:.4g} to {levels[-1][1]:.4g}")
    for name, curves in (("levels", alike(samplers)), ("spacings", spacings)):
        title = f"{name} of {steps} steps, as this checkpoint is sampled"
        chart = line_chart(curves, title=title, x="share of the walk", y="sigma", log=True)
        (out / f"{name}.svg").write_text(chart)


def alike(walks: dict[str, list[tuple[float, float]]]) -> dict[str, list[tuple[float, float]]]:
    """One curve for all samplers that visit the same levels."""
    together: dict[tuple, list[str]] = {}
    for name, walk in walks.items():
        together.setdefault(tuple(walk), []).append(name)
    return {
        names[0] + (f" and {len(names) - 1} others" if names[1:] else ""): list(walk)
        for walk, names in together.items()
    }


if __name__ == "__main__":
    typer.run(main)
