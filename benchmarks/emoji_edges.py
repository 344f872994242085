"""Does the built-in ControlNet make the built-in model follow edges?

python benchmarks/emoji_edges.py --data ../shared/data/noto-emoji

The hint is Canny's edges of an emoji as it is, mirrored, or smaller and moved: pictures that the
model itself has never drawn. Measured is how far the edges of the drawn picture agree with it, with
the ControlNet and without it, at the same prompts and seeds.
"""

import sys
from pathlib import Path
from typing import Any

import emoji_metric as metric
import emoji_names
import machine
import numpy as np
import torch
import typer
from PIL import Image

import darkroom as dr
from darkroom.images import grid
from darkroom.vision.annotators.canny import canny, edges

SIZE = metric.SIZE
LOW, HIGH = 100, 200  # Canny's thresholds
SMALLER, LEFT, TOP = 46, 15, 4  # pixels: the side and the place of what is moved


def agreement(drawn: np.ndarray, hint: np.ndarray, reach: int = 1) -> float:
    """F1 of edge pixels (H, W); one counts as found within ``reach`` pixels, corners included."""
    if not drawn.any() or not hint.any():
        return float(drawn.any() == hint.any())
    precision, recall = near(hint, reach)[drawn].mean(), near(drawn, reach)[hint].mean()
    return float(2 * precision * recall / max(precision + recall, 1e-9))


def near(marked: np.ndarray, reach: int) -> np.ndarray:
    """What lies within ``reach`` pixels of a mark."""
    padded = np.pad(marked, reach)
    height, width = marked.shape
    around = range(2 * reach + 1)
    return np.any([padded[y : y + height, x : x + width] for y in around for x in around], axis=0)


def posed(picture: np.ndarray, how: str) -> Image.Image:
    """The picture (64, 64, 3) in [0, 1]: as it is, mirrored, or smaller and moved."""
    image = Image.fromarray((picture * 255).round().astype(np.uint8))
    if how == "mirrored":
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if how == "smaller and moved":
        canvas = Image.new("RGB", (SIZE, SIZE), "white")
        canvas.paste(image.resize((SMALLER, SMALLER), Image.Resampling.BOX), (LEFT, TOP))
        return canvas
    return image


class Artist:
    """The model that draws, with hints or without; what it draws without is drawn once."""

    def __init__(self, model: Any, net: Any, guidance: float, steps: int) -> None:
        self.model, self.net, self.guidance, self.steps = model, net, guidance, steps
        self.alone: dict[str, Image.Image] = {}

    def __call__(self, prompt: str, hint: Image.Image | None) -> Image.Image:
        """One picture, of seed 1."""
        if hint is None and prompt in self.alone:
            return self.alone[prompt]
        features: list[Any] = [dr.Guidance(self.guidance if prompt else 1.0)]
        if hint is not None:
            features.append(dr.Control(self.net, hint))
        (made,) = dr.develop(self.model, prompt, *features, seeds=[1], steps=self.steps)
        if hint is None:
            self.alone[prompt] = made.image
        return made.image


def follow(
    emoji: metric.Emoji, rows: np.ndarray, artist: Artist, how: str, worded: bool
) -> tuple[dict[str, Any], list[Image.Image]]:
    """Agreement with and without the ControlNet, and the pictures of both."""
    scores: dict[str, list[float]] = {"with": [], "without": []}
    exact: dict[str, list[float]] = {"with": [], "without": []}
    rebuilt, drawn, sheet = [], [], []
    for i in rows:
        source = posed(emoji.pictures[i], how)
        hint = canny(source, low=LOW, high=HIGH)
        wanted = np.asarray(hint.convert("L")) > 127
        prompt = emoji.rows[i]["text"] if worded else ""
        sheet += [source, hint]
        for name, given in (("with", hint), ("without", None)):
            made = artist(prompt, given)
            found = edges(np.asarray(made), LOW, HIGH)
            scores[name].append(agreement(found, wanted))
            exact[name].append(agreement(found, wanted, 0))
            sheet.append(made)
        drawn.append(metric.pixels(sheet[-2]))
        back = emoji_names.reconstructed(artist.model, metric.pixels(source)[None])[0]
        again = edges((back * 255).round().astype(np.uint8), LOW, HIGH)
        rebuilt.append(agreement(again, wanted))
    print(how, worded, np.mean(scores["with"]), np.mean(scores["without"]), file=sys.stderr)
    better = [a > b for a, b in zip(scores["with"], scores["without"], strict=True)]
    result: dict[str, Any] = {
        "F1 with": float(np.mean(scores["with"])),
        "F1 without": float(np.mean(scores["without"])),
        "F1 of the autoencoder's reconstruction": float(np.mean(rebuilt)),
        "better with": emoji_names.share(better),
        "F1 with, to the pixel": float(np.mean(exact["with"])),
        "F1 without, to the pixel": float(np.mean(exact["without"])),
    }
    if worded and how == "as it is":
        seen = metric.verdicts(emoji, np.stack(drawn), rows)
        result["the named emoji, with"] = emoji_names.share([v.exact for v in seen])
    return result, sheet


def markdown(fields: dict[str, Any]) -> str:
    lines = [f"# How `{fields['net']}` follows edges", "", machine.line(fields["machine"]), ""]
    lines += [
        f"{fields['names']} emoji chosen with a fixed seed, one picture each with and without the "
        f"ControlNet, same prompt and seed; `{fields['model']}`, guidance {fields['scale']:g} (1 "
        f"for the empty prompt), {fields['steps']} steps. Canny {LOW}/{HIGH} of the drawn picture "
        "against the hint: F1, a pixel within one pixel counts. "
        f'"Smaller and moved": {SMALLER} of 64 pixels wide, at ({LEFT}, {TOP}). The autoencoder\'s '
        "reconstruction of the very picture says what its latents can hold.",
        "",
    ]
    results = fields["results"]
    names = list(dict.fromkeys(name for result in results.values() for name in result))
    lines += [f"| hint, prompt | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for label, result in results.items():
        cells = [emoji_names.cell(result[name]) if name in result else "" for name in names]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(
    net: str = typer.Argument("emoji-edges"),
    model: str = "emoji",
    data: Path = Path("../shared/data/noto-emoji"),
    names: int = 200,
    guidance: float = 3.0,
    steps: int = 20,
    threads: int = 1,
    out: Path = machine.RESULTS,
    sheet: Path | None = None,
) -> None:
    """Measure a ControlNet on edges for a model of noto-emoji.

    --sheet FOLDER also saves pictures: the emoji, its edges, drawn with and without.
    """
    torch.set_num_threads(threads)
    facts = machine.describe(threads)
    emoji = metric.read(data)
    rows = emoji_names.named(emoji, names)
    artist = Artist(dr.load(model), dr.load(net), guidance, steps)
    results: dict[str, Any] = {}
    for number, (how, worded) in enumerate(
        (how, worded)
        for worded in (True, False)
        for how in ("as it is", "mirrored", "smaller and moved")
    ):
        label = f"{how}, {'its name' if worded else 'no words'}"
        results[label], pictures = follow(emoji, rows, artist, how, worded)
        if sheet is not None:
            sheet.mkdir(parents=True, exist_ok=True)
            grid(pictures[: 48 * 4], columns=16).save(sheet / f"{number}.png")
    fields = {
        "net": Path(net).name,
        "model": Path(model).name,
        "machine": facts,
        "scale": guidance,
        "steps": steps,
        "names": names,
        "results": results,
    }
    paths = machine.write(out, f"emoji-edges-{fields['net']}", fields, markdown(fields))
    print(markdown(fields), *map(str, paths), sep="\n")


if __name__ == "__main__":
    typer.run(main)
