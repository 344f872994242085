"""Captions for named and tagged pictures, and the augmented pictures they describe.

Everything is drawn from a given generator, so that a step's number decides it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from darkroom.training.augment import GROUNDS, TINTS, colour, compose, tint


@dataclass(frozen=True)
class Variant:
    """One picture as it is shown: recoloured or not, over white or over a colour."""

    picture: int
    tint: str | None = None
    ground: str | None = None
    mirrored: bool = False


def variants(
    rows: Sequence[Mapping[str, Any]],
    tints: int,
    grounds: int,
    both: int,
    seed: int,
    mirrored: bool = False,
) -> list[list[Variant]]:
    """The variants to train on, by kind: plain (and ``mirrored``), rare, tinted, on a ground, both.

    "rare" are the pictures whose row has ``skin_tone`` set: they come plain only.
    """
    g = torch.Generator().manual_seed(seed)

    def some(names: Sequence[str], count: int) -> list[str]:
        order = torch.randperm(len(names), generator=g)[:count]
        return [names[int(i)] for i in order]

    kinds: list[list[Variant]] = [[], [], [], [], []]
    for i, row in enumerate(rows):
        if row.get("skin_tone"):
            kinds[1].append(Variant(i))
            continue
        kinds[0] += [Variant(i), Variant(i, mirrored=True)] if mirrored else [Variant(i)]
        kinds[2] += [Variant(i, tint=name) for name in some(TINTS, tints)]
        kinds[3] += [Variant(i, ground=name) for name in some(GROUNDS, grounds)]
        pairs = zip(some(TINTS, both), some(GROUNDS, both), strict=True)
        kinds[4] += [Variant(i, a, b) for a, b in pairs if a != b]
    return kinds


def render(pixels: Tensor, shown: Sequence[Variant]) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1] of the picture (B, 4, H, W) of each variant."""
    return over_grounds(recoloured(pixels, shown), shown)


def recoloured(pixels: Tensor, shown: Sequence[Variant]) -> Tensor:
    """(B, 4, H, W) uint8: each picture tinted and mirrored as its variant, its alpha kept."""
    tinted = torch.tensor([v.tint is not None for v in shown])
    colours = colour([v.tint or "white" for v in shown])
    pixels = torch.where(tinted[:, None, None, None], tint(pixels, colours), pixels)
    mirrored = torch.tensor([v.mirrored for v in shown])
    return torch.where(mirrored[:, None, None, None], pixels.flip(-1), pixels)


def over_grounds(pixels: Tensor, shown: Sequence[Variant]) -> Tensor:
    """Images (B, 3, H, W) in [-1, 1] of recoloured pictures, over white or their colour."""
    return compose(pixels, colour([v.ground or "white" for v in shown]))


def caption(row: Mapping[str, Any], shown: Variant, g: torch.Generator, noun: str = "") -> str:
    """One way of saying what ``shown`` shows: mostly the name, now and then the tags.

    Args:
        noun: what all the pictures are: "emoji".
    """

    def chance() -> float:
        return torch.rand((), generator=g).item()

    name, tags = row["text"], list(row.get("tags", ()))
    order = [tags[int(i)] for i in torch.randperm(len(tags), generator=g)]
    what, form = name, chance()
    if shown.tint is not None:
        what = f"{shown.tint} {name}"
        if form < 0.4:
            what = f"{article(what)} {what}"
    elif form < 0.15:
        what = f"{article(name)} {name}"
    elif form < 0.25:
        what = f"{name} {noun}" if noun else name
    elif form < 0.40 and order:
        what = ", ".join([name, *order[:2]])
    elif form < 0.47 and len(order) > 1:
        what = ", ".join(order[:3])
    if shown.ground is not None:
        return f"{what} on {article(shown.ground)} {shown.ground} background"
    return f"{what} on a white background" if chance() < 0.1 else what


def all_texts(rows: Sequence[Mapping[str, Any]], noun: str = "") -> list[str]:
    """What a vocabulary is learned from: names, tags, colours and the words around them."""
    texts = [text for row in rows for text in (row["text"], *row.get("tags", ()))]
    frame = [f"a {c} {noun} on an {c} background" for c in (*TINTS, "white")]
    return texts + frame * 50


def article(text: str) -> str:
    """The indefinite article that goes before ``text``."""
    return "an" if text[:1] in "aeiou" else "a"
