"""Five digits appear out of noise, as the book samples them (figure 16.15).

The network estimates the clean digit; the estimate is noised to the next, lower timestep.

python examples/figures/progressive_digits.py runs/mnist-book
"""

from pathlib import Path

import torch
import typer

from darkroom.config import from_dict
from darkroom.images import labelled_grid, to_pictures
from darkroom.recipes.mnist_book import BookConfig, BookNetwork, log_timesteps, progressive
from darkroom.training.saving import read_state


def main(run: Path, out: Path = Path("pictures"), count: int = 5, seed: int = 0) -> None:
    out.mkdir(parents=True, exist_ok=True)
    times = log_timesteps(100)
    g = torch.Generator().manual_seed(seed)
    frames = progressive(opened(run), count, times, g)  # the noise, then one for each t
    shown = [0, *range(10, len(frames), 10)]
    images = torch.stack([frames[i] for i in shown], 1).flatten(0, 1)  # digit by digit
    tiles = to_pictures(images.expand(-1, 3, -1, -1) * 2 - 1)
    titles = ["noise", *(f"t = {times[i - 1]}" for i in shown[1:])]
    labelled_grid(tiles, len(shown), titles=titles, scale=2).save(out / "progressive_digits.png")
    print(f"{count} digits at {', '.join(titles)}")


def opened(run: Path) -> BookNetwork:
    """The network that ``darkroom train mnist-book.toml`` left in its folder."""
    tensors, about = read_state(run / "network.safetensors")
    network = BookNetwork(from_dict(BookConfig, about["config"]))
    network.load_state_dict(tensors)
    return network.eval()


if __name__ == "__main__":
    typer.run(main)
