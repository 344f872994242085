"""Pictures against captions before and after contrastive training (the idea of figure 16.1).

Two linear maps are trained on pictures that the built-in model draws; the matrix is of pictures
from other seeds, which the maps have never seen.

python examples/figures/similarity.py
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn

import darkroom as dr
from darkroom.charts import matrix_chart
from darkroom.images import to_tensor

CAPTIONS = ["red apple", "cat", "rocket", "tree", "blue car", "pizza", "moon", "house"]


def main(
    model: str = "emoji",
    out: Path = Path("pictures"),
    captions: list[str] = CAPTIONS,
    seeds: int = 4,
    steps: int = 8,
    updates: int = 100,
) -> None:
    loaded = dr.load(model, device="cpu", dtype="float32")
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    drawn = [features(loaded, captions, seed, steps) for seed in range(seeds + 1)]
    *training, held_out = drawn
    texts = torch.cat([pooled(loaded, caption) for caption in captions])
    image_map = nn.Linear(held_out.shape[1], 64)
    text_map = nn.Linear(texts.shape[1], 64)
    optimizer = torch.optim.AdamW([*image_map.parameters(), *text_map.parameters()], 1e-2)

    def similarity(images: Tensor) -> Tensor:
        """Cosines (N, N): pictures down, captions across."""
        return F.normalize(image_map(images)) @ F.normalize(text_map(texts)).T

    def chart(name: str) -> float:
        found = similarity(held_out).detach()
        svg = matrix_chart(found.tolist(), rows=captions, columns=captions, title=name)
        (out / f"similarity_{name}.svg").write_text(svg)
        return (found.argmax(1) == torch.arange(len(captions))).float().mean().item()

    print(f"before: {chart('before'):.0%} of the new pictures are nearest to their caption")
    target = torch.arange(len(captions))
    for update in range(updates):
        logits = similarity(training[update % seeds]) / 0.07
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"after:  {chart('after'):.0%}; loss {loss.item():.3f}")


@torch.no_grad()
def pooled(loaded: Any, caption: str) -> Tensor:
    """The text tower's feature (1, C) of a whole caption."""
    tower = loaded.text_encoder.towers[0]
    words, length = tower.tokenizer, tower.model.config.positions
    ids = [words.bos, *words.encode(caption)[: length - 2], words.eos]
    return tower.model(torch.tensor([ids + [words.pad] * (length - len(ids))])).pooled


@torch.no_grad()
def features(loaded: Any, captions: list[str], seed: int, steps: int) -> Tensor:
    """Latents (N, D) of a picture of each caption."""
    guidance = dr.Guidance(loaded.settings.get("guidance", 7.5))
    latents = []
    for caption in captions:
        image = dr.develop(loaded, caption, guidance, seeds=[seed], steps=steps)[0].image
        weight = next(loaded.autoencoder.parameters())
        latents.append(loaded.autoencoder.encode(to_tensor(image).to(weight)).float().flatten(1))
    return torch.cat(latents)


if __name__ == "__main__":
    typer.run(main)
