"""The same seed through several samplers: the checkpoint's spacing stays, unless you name one.

python examples/swap_sampler.py --model emoji --prompt "red apple" --steps 12
"""

import time
from pathlib import Path

import typer

import darkroom as dr
from darkroom.images import grid

SAMPLERS = ("pndm", "ddim", "lms", "heun", "euler", "euler_ancestral", "dpmpp_2m", "unipc")


def main(
    model: str = "emoji",
    prompt: str = "red apple",
    out: Path = Path("pictures"),
    steps: int = 12,
    seed: int = 7,
) -> None:
    loaded = dr.load(model)
    out.mkdir(parents=True, exist_ok=True)
    guidance = dr.Guidance(loaded.settings.get("guidance", 7.5))
    drawn = []
    for sampler in SAMPLERS:
        started = time.perf_counter()
        run = dr.generate(loaded, prompt, guidance, seeds=[seed], steps=steps, sampler=sampler)
        picture = run.pictures()[0]
        picture.save(out / f"{sampler}.png")
        seconds = time.perf_counter() - started
        print(f"{sampler:16} {len(run):3} calls of the network {seconds:6.1f} s")
        drawn.append(picture.image)
    grid(drawn).save(out / "swap_sampler.png")


if __name__ == "__main__":
    typer.run(main)
