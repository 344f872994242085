"""How well does the built-in `emoji-clip` find emoji by their names, and masks by words?

python benchmarks/emoji_clip.py --data noto-emoji --photographs flickr8k --segmenter emoji-sam

Pictures and names find each other, emoji as they are and laid into scenes over photographs that
training did not see; one name of ten or of fifty; and a mask of a scene is chosen by a word, among
exact masks with decoys or among what a segmenter finds, the thing being there or not.
"""

import itertools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
import typer
from PIL import Image
from torch import Tensor

from darkroom.images import ImageLike
from darkroom.masks import Mask
from darkroom.training.contrastive import recall
from darkroom.training.data.held_out import family, split
from darkroom.training.data.scenes import (
    Composer,
    Cutouts,
    Scene,
    SceneOptions,
    open_cutouts,
    open_grounds,
)
from darkroom.vision import select as selecting
from darkroom.vision.encoder import Encoder, open_encoder

AT = (1, 5, 10)
SIDE = 160  # pixels of a scene
KEPT_ASIDE = 0.05  # as in emoji-clip.toml
FEW = SceneOptions(size=SIDE, things=(3, 6), scale=(0.2, 0.5), near=0.3, blur=0.1, noise=0.1)
ONE = SceneOptions(size=SIDE, things=(1, 1), scale=(0.4, 0.8), blur=0.1, noise=0.1)


def share(hits: Sequence[bool]) -> str:
    """A percentage."""
    return f"{100 * float(np.mean(hits)):.1f} %" if len(hits) else "-"


# --- pictures and names


def composed(cutouts: Cutouts, grounds: Tensor | None, seed: int) -> list[Scene]:
    """One scene of each cut-out alone."""
    return [
        Composer(Cutouts(cutouts.pixels[i : i + 1], (name,)), grounds, ONE, seed).scene(i)
        for i, name in enumerate(cutouts.names)
    ]


def seen(scene: Scene, encoder: Encoder | None = None) -> Image.Image:
    """The thing of a scene: cut out as for an encoder, or the square around it."""
    image = Image.fromarray(scene.pixels.permute(1, 2, 0).numpy())
    mask = Mask(scene.masks[0].numpy())
    if encoder is not None:
        return selecting.cut(np.asarray(image), mask, encoder.size)
    left, top, right, bottom = mask.box or (0, 0, SIDE, SIDE)
    half = round(max(right - left, bottom - top) * (0.5 + selecting.MARGIN))
    x, y = (left + right) // 2, (top + bottom) // 2
    return image.crop(
        (max(x - half, 0), max(y - half, 0), min(x + half, SIDE), min(y + half, SIDE))
    ).resize((SIDE, SIDE))


def retrieval(pictures: Tensor, names: Tensor, rows: Sequence[int]) -> dict[str, str]:
    """Recall of pictures and names (N, E) among some rows."""
    found = recall(pictures[list(rows)], names[list(rows)], torch.arange(len(rows)), AT)
    ways = ("text to image", "image to text")
    return {
        f"{way} at {k}": f"{100 * value:.1f} %"
        for way, values in zip(ways, found, strict=True)
        for k, value in zip(AT, values, strict=True)
    }


def among(pictures: Tensor, names: Tensor, rows: Sequence[int], labels: int, seed: int = 0) -> str:
    """How often a picture's own name is the best of so many, the others drawn at random."""
    rng, hits = np.random.default_rng(seed), []
    for i in rows:
        others = rng.choice([j for j in range(len(names)) if j != i], labels - 1, replace=False)
        scores = names[[i, *others.tolist()]] @ pictures[i]
        hits.append(bool(scores.argmax() == 0))
    return share(hits)


# --- masks by words


class Exact:
    """Every thing's exact mask, and decoys: halves, pairs, pieces of the ground."""

    name = "exact masks and decoys"

    def __init__(self, scene: Scene, seed: int) -> None:
        self.scene, self.rng = scene, np.random.default_rng(seed)

    def everything(self, image: ImageLike) -> list[Mask]:
        masks = list(self.scene.masks.numpy())
        found = list(masks)
        for mask in masks:
            middle = np.argwhere(mask).mean(0).astype(int)
            half = mask.copy()
            half[: middle[0]] = False
            found.append(half)
        found += [one | other for one, other in itertools.pairwise(masks)]
        ground = ~np.any(masks, axis=0)
        found.append(ground)
        for _ in range(6):
            side = int(self.rng.integers(20, 70))
            top, left = self.rng.integers(0, SIDE - side, 2)
            piece = np.zeros_like(ground)
            piece[top : top + side, left : left + side] = True
            found.append(piece & ground)
        return [Mask(mask) for mask in found]


def wanted(scene: Scene, among_these: Callable[[str], bool]) -> list[int]:
    """Objects that are seen well, alone of their family, and fit."""
    families = [family(label) for label in scene.labels]
    return [
        i
        for i, label in enumerate(scene.labels)
        if families.count(families[i]) == 1
        and among_these(label)
        and int(scene.masks[i].sum()) > 300
    ]


def absent(scene: Scene, names: Sequence[str], rng: np.random.Generator) -> str:
    """A name that shares no word with what is in the scene."""
    there = {word for label in scene.labels for word in label.lower().split()}
    while True:
        name = names[int(rng.integers(len(names)))]
        if not there & set(name.lower().split()):
            return name


def choose(
    encoder: Encoder,
    segmenter: Any,
    composer: Composer,
    names: Sequence[str],
    count: int,
    fits: Callable[[str], bool],
) -> list[dict[str, Any]]:
    """What is chosen in scenes for a name that is there, and for one that is not."""
    answers, number, rng = list[dict[str, Any]](), 0, np.random.default_rng(1)
    while len(answers) < count:
        scene = composer.scene(number)
        number += 1
        objects = wanted(scene, fits)
        if not objects:
            continue
        image = Image.fromarray(scene.pixels.permute(1, 2, 0).numpy())
        truth = scene.masks[objects[0]].numpy()
        proposer = segmenter or Exact(scene, number)
        masks = list(proposer.everything(image))
        there = selecting.rank(encoder, image, masks, scene.labels[objects[0]], threshold=0.0)
        not_there = selecting.rank(encoder, image, masks, absent(scene, names, rng), threshold=0.0)
        best = [mask.iou(Mask(truth)) for mask in there.masks]
        answers.append(
            {
                "score": there.score,
                "absent score": not_there.score,
                "iou": best[0] if best else 0.0,
                "proposed": max(best, default=0.0),
                "label": scene.labels[objects[0]],
            }
        )
        if len(answers) % 50 == 0:
            print(f"{len(answers)} scenes", file=sys.stderr, flush=True)
    return answers


def chosen(answers: Sequence[dict[str, Any]], threshold: float) -> dict[str, str]:
    """Shares at a threshold."""
    right = [a["iou"] >= 0.5 for a in answers]
    taken = [a["score"] >= threshold for a in answers]
    both = list(zip(right, taken, strict=True))
    ious = [a["iou"] for a, t in zip(answers, taken, strict=True) if t]
    return {
        "a mask of it was proposed": share([a["proposed"] >= 0.5 for a in answers]),
        "it fits best": share(right),
        "right and chosen": share([r and t for r, t in both]),
        "wrong and chosen": share([t and not r for r, t in both]),
        "abstains though it is there": share([not t for t in taken]),
        "abstains where it is absent": share([a["absent score"] < threshold for a in answers]),
        "mean IoU of what is chosen": f"{np.mean(ious or [0]):.3f}",
    }


def table(title: str, columns: dict[str, dict[str, str]]) -> list[str]:
    rows = list(next(iter(columns.values())))
    lines = [f"| {title} | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    lines += [
        f"| {row} | {' | '.join(column[row] for column in columns.values())} |" for row in rows
    ]
    return [*lines, ""]


def main(
    model: str = typer.Argument("emoji-clip"),
    data: Path = Path("../shared/data/noto-emoji"),
    photographs: Path = Path("../shared/data/flickr8k"),
    segmenter: list[str] | None = None,
    scenes: int = 200,
    threads: int = 1,
    out: Path = machine.RESULTS,
) -> None:
    """Measure an encoder of noto-emoji; with --segmenter NAME also what it chooses of its masks.

    --segmenter may be repeated.
    """
    torch.set_num_threads(threads)
    facts = machine.describe(threads)
    encoder = open_encoder(model, "cpu")
    rows = [json.loads(line) for line in (data / "metadata.jsonl").read_text().splitlines()]
    common = {row["text"] for row in rows if not row["skin_tone"]}
    everything = open_cutouts(data, SIDE)
    kept = [i for i, name in enumerate(everything.names) if name in common]
    cutouts = Cutouts(everything.pixels[kept], tuple(everything.names[i] for i in kept))
    aside = split(cutouts.names, KEPT_ASIDE)[1]
    grounds = open_grounds([photographs], SIDE, 300, aside=True)
    names = encoder.encode_text([selecting.plain(name) for name in cutouts.names])
    white = [Image.alpha_composite(Image.new("RGBA", (SIDE, SIDE), "white"), Image.fromarray(p))
             for p in cutouts.pixels]  # fmt: skip
    views = {"on white": encoder.encode_image(white)}
    made = composed(cutouts, grounds, 5)
    views["cut out of a scene"] = encoder.encode_image([seen(scene, encoder) for scene in made])
    views["in its scene"] = encoder.encode_image([seen(scene) for scene in made])
    results: dict[str, Any] = {"emoji": len(cutouts), "kept aside": len(aside)}
    lines = [f"# What `{Path(model).name}` knows", "", machine.line(facts), ""]
    for which, chosen_rows in (("all", range(len(cutouts))), ("kept aside", aside)):
        columns = {}
        for view, pictures in views.items():
            columns[view] = retrieval(pictures, names, chosen_rows)
            for labels in (10, 50):
                columns[view][f"its name among {labels}"] = among(
                    pictures, names, chosen_rows, labels
                )
        results[f"retrieval, {which}"] = columns
        lines += table(f"{len(chosen_rows)} emoji ({which})", columns)
    threshold = selecting.THRESHOLD
    held = {cutouts.names[i] for i in aside}
    opened: list[Any] = [None]
    if segmenter:
        from darkroom.vision.segment import open_segmenter

        opened += [open_segmenter(name) for name in segmenter]
    for proposer in opened:
        title = f"masks of {proposer.name}" if proposer else Exact.name
        columns = {}
        for which, fits, count in (
            ("any emoji", lambda name: True, scenes),
            ("kept aside", lambda name: name in held, scenes // 2),
        ):
            these = cutouts
            if which == "kept aside":  # more of them, or few scenes have one
                more = [*range(len(cutouts)), *(aside * 10)]
                these = Cutouts(cutouts.pixels[more], tuple(cutouts.names[i] for i in more))
            composer = Composer(these, grounds, FEW, 77)
            answers = choose(encoder, proposer, composer, cutouts.names, count, fits)
            columns[which] = chosen(answers, threshold)
            results[f"masks, {title}, {which}"] = {"answers": answers, **columns[which]}
        lines += table(f"{title}, threshold {threshold:.2f}", columns)
    fields = {"machine": facts, "model": Path(model).name, "threshold": threshold, **results}
    paths = machine.write(out, f"emoji-clip-{fields['model']}", fields, "\n".join(lines))
    print("\n".join(lines), *map(str, paths), sep="\n")


if __name__ == "__main__":
    typer.run(main)
