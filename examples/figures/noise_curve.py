"""How much picture and how much noise there is at each timestep (figure 16.12).

python examples/figures/noise_curve.py
"""

from pathlib import Path

import typer

from darkroom.charts import line_chart
from darkroom.diffusion.schedule import NoiseSchedule

SCHEDULES = {
    "linear (DDPM)": NoiseSchedule.linear,
    "scaled linear (Stable Diffusion)": NoiseSchedule.scaled_linear,
    "cosine": NoiseSchedule.cosine,
}


def main(out: Path = Path("pictures"), every: int = 5) -> None:
    out.mkdir(parents=True, exist_ok=True)
    shares = {}
    for name, make in SCHEDULES.items():
        schedule = make()
        times = range(0, len(schedule), every)
        shares[name] = [(t, schedule.alpha_bar(t)) for t in times]
        print(f"{name:33} alpha-bar {', '.join(f'{share:.4g}' for _, share in shares[name][::50])}")
    linear = shares["linear (DDPM)"]
    both = {
        "picture: sqrt(alpha-bar)": [(t, share**0.5) for t, share in linear],
        "noise: sqrt(1 - alpha-bar)": [(t, (1 - share) ** 0.5) for t, share in linear],
    }
    title = "x_t = sqrt(alpha-bar) picture + sqrt(1 - alpha-bar) noise"
    (out / "noise_curve.svg").write_text(line_chart(both, title=title, x="t", y="factor"))
    title = "the share of the picture's variance that is left"
    (out / "alpha_bar.svg").write_text(line_chart(shares, title=title, x="t", y="alpha-bar"))


if __name__ == "__main__":
    typer.run(main)
