"""The digits 0 to 9, each asked for, in one step of the network (figure 16.16).

python examples/figures/digits_in_one_step.py runs/mnist-conditional-book
"""

from pathlib import Path

import torch
import typer
from PIL import Image

from darkroom.config import from_dict
from darkroom.images import labelled_grid, to_pictures
from darkroom.recipes.mnist_book import BookConfig, BookNetwork, estimates, log_timesteps
from darkroom.training.saving import read_state


def main(run: Path, out: Path = Path("pictures"), seed: int = 0) -> None:
    out.mkdir(parents=True, exist_ok=True)
    model = opened(run)
    classes = model.config.classes
    times = log_timesteps(6)
    found = estimates(model, classes, times, torch.Generator().manual_seed(seed))
    names = [str(digit) for digit in range(classes)]

    one = labelled_grid(tiles(found[0]), classes, titles=names, scale=2)
    one.save(out / "digits_in_one_step.png")
    titles = [f"t = {t}" for t in times]
    images = torch.stack(found, 1).flatten(0, 1)  # digit by digit
    more = labelled_grid(tiles(images), len(times), titles=titles, rows=names, scale=2)
    more.save(out / "digits_in_more_steps.png")
    print(f"{classes} digits in one step, and estimated again at {', '.join(titles[1:])}")


def tiles(images: torch.Tensor) -> list[Image.Image]:
    return to_pictures(images.expand(-1, 3, -1, -1) * 2 - 1)


def opened(run: Path) -> BookNetwork:
    """The network that ``darkroom train mnist-book.toml`` left in its folder."""
    tensors, about = read_state(run / "network.safetensors")
    network = BookNetwork(from_dict(BookConfig, about["config"]))
    network.load_state_dict(tensors)
    return network.eval()


if __name__ == "__main__":
    typer.run(main)
