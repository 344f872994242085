"""Does the built-in model draw what is asked for? Names, colours, backgrounds, negative prompts.

python benchmarks/emoji_names.py emoji --data ../shared/data/noto-emoji

The metric and its reasons: emoji_metric.py. Nothing of Darkroom grades the pictures; the model is
used through ``dr.load`` and ``dr.develop``.
"""

import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import emoji_metric as metric
import machine
import numpy as np
import torch
import typer
from PIL import Image

import darkroom as dr
from darkroom.training.augment import COLOURS

PARTS = ("names", "guidance", "colours", "grounds", "negative")
SEED = 20261121  # of the choice of names
HUES = ("red", "orange", "yellow", "green", "blue", "purple", "pink")  # brown and greys have none
THINGS = (
    "car", "automobile", "balloon", "red heart", "butterfly", "t-shirt", "umbrella", "cat face",
    "fish", "rose", "house", "handbag",
)  # fmt: skip
SCALES = (1.0, 2.0, 4.0, 7.5)


class Artist:
    """A model that draws; counts and times what it draws."""

    def __init__(self, model: Any, guidance: float | None, steps: int | None) -> None:
        self.model, self.steps = model, steps
        self.guidance = model.settings.get("guidance", 4.0) if guidance is None else guidance
        self.drawn, self.seconds = 0, 0.0

    def __call__(
        self, prompt: str, seeds: list[int], scale: float | None = None, negative: str | None = None
    ) -> np.ndarray:
        """(len(seeds), 64, 64, 3) in [0, 1]."""
        began = time.perf_counter()
        guidance = dr.Guidance(self.guidance if scale is None else scale, negative=negative)
        pictures = dr.develop(self.model, prompt, guidance, seeds=seeds, steps=self.steps)
        self.seconds += time.perf_counter() - began
        self.drawn += len(seeds)
        if self.drawn % 60 < len(seeds):
            rate = self.drawn / self.seconds
            print(f"{self.drawn} pictures, {rate:.2f} a second", file=sys.stderr, flush=True)
        return np.stack([metric.pixels(picture.image) for picture in pictures])


def share(hits: list[bool]) -> dict[str, Any]:
    low, high = metric.wilson(sum(hits), len(hits))
    return {"share": sum(hits) / max(len(hits), 1), "low": low, "high": high, "of": len(hits)}


def quantiles(values: np.ndarray) -> dict[str, float]:
    points = (0.05, 0.25, 0.5, 0.75, 0.95)
    return {f"{100 * p:.0f} %": round(float(np.quantile(values, p)), 4) for p in points}


def named(emoji: metric.Emoji, count: int) -> np.ndarray:
    """The rows whose names are asked for: drawn once, with a fixed seed, from the base emoji."""
    base = emoji.base.tolist()
    return np.array(random.Random(SEED).sample(base, min(count, len(base))))


def check_names(
    emoji: metric.Emoji, artist: Artist, count: int, seeds: int
) -> tuple[dict[str, Any], np.ndarray]:
    """Nearest neighbours of the pictures, and how near the training pictures they are."""
    rows = named(emoji, count)
    drawn = [artist(emoji.rows[i]["text"], list(range(1, seeds + 1))) for i in rows]
    pictures, wanted = np.concatenate(drawn), np.repeat(rows, seeds)
    found = metric.verdicts(emoji, pictures, wanted)
    by_name = [sum(v.subgroup for v in found[i : i + seeds]) for i in range(0, len(found), seeds)]
    misses = [
        {
            "name": emoji.rows[i]["text"],
            "looks like": [emoji.rows[v.nearest]["text"] for v in found[k * seeds :][:seeds]],
        }
        for k, i in enumerate(rows)
        if by_name[k] == 0
    ]
    rebuilt = reconstructed(artist.model, emoji.pictures[rows])
    again = metric.verdicts(emoji, rebuilt, rows)
    result = {
        "names": len(rows),
        "seeds": seeds,
        "exact": share([v.exact for v in found]),
        "subgroup or exact": share([v.subgroup for v in found]),
        "most of a name's pictures": share([2 * n > seeds for n in by_name]),
        "subgroup by chance": metric.chance(emoji, rows),
        "exact, reconstructions by the autoencoder": share([v.exact for v in again]),
        "copying": copying(emoji, pictures, rows, rebuilt),
        "names of which no picture counts": misses,
    }
    return result, pictures


def copying(
    emoji: metric.Emoji, pictures: np.ndarray, rows: np.ndarray, rebuilt: np.ndarray
) -> dict[str, Any]:
    """How far pictures are from their nearest training picture, against two yardsticks."""
    base = emoji.base
    table = metric.distances(pictures, emoji.pictures[base])
    nearest, where = table.min(1), table.argmin(1)
    others = metric.to_nearest_other(emoji, base)
    own = np.diagonal(metric.distances(rebuilt, emoji.pictures[rows]))
    apart = others[where] > 0  # some emoji are drawn alike
    return {
        "picture to its nearest training picture, skin tones among them": quantiles(
            metric.distances(pictures, emoji.pictures).min(1)
        ),
        "picture to its nearest emoji": quantiles(nearest),
        "(a) reconstruction by the autoencoder to its original": quantiles(own),
        "(b) emoji to its nearest other emoji": quantiles(others),
        "nearer to an emoji than half of its (b): a copy": share(
            (nearest[apart] < others[where][apart] / 2).tolist()
        ),
        "as near to an emoji as a reconstruction (the 95 % of (a))": share(
            (nearest <= np.quantile(own, 0.95)).tolist()
        ),
    }


@torch.no_grad()
def reconstructed(model: Any, pictures: np.ndarray) -> np.ndarray:
    """Through the autoencoder and back, rounded to 8 bits as pictures are."""
    weight = next(model.autoencoder.parameters())
    side = model.settings.get("size", (64, 64))
    found = []
    for picture in pictures:
        image = torch.from_numpy(picture).permute(2, 0, 1)[None] * 2 - 1
        image = torch.nn.functional.interpolate(image, tuple(side)).to(weight)
        back = model.autoencoder.decode(model.autoencoder.encode(image)).float().cpu()
        values = ((back[0].permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
        found.append(metric.pixels(Image.fromarray(values.numpy())))
    return np.stack(found)


def check_guidance(emoji: metric.Emoji, artist: Artist, count: int) -> dict[str, Any]:
    """The share of names that come out, by guidance scale."""
    rows, found = named(emoji, count), {}
    for scale in SCALES:
        drawn = np.concatenate([artist(emoji.rows[i]["text"], [1], scale) for i in rows])
        seen = metric.verdicts(emoji, drawn, rows)
        found[f"{scale:g}"] = {
            "exact": share([v.exact for v in seen]),
            "subgroup or exact": share([v.subgroup for v in seen]),
        }
    return found


def check_colours(emoji: metric.Emoji, artist: Artist, count: int) -> dict[str, Any]:
    """Whether the thing's saturated pixels have, on average, the hue that was asked for."""
    hues = {name: COLOURS[name] for name in HUES}
    hits: dict[str, list[bool]] = {name: [] for name in HUES}
    for thing in THINGS[:count]:
        for name in HUES:
            article = "an" if name == "orange" else "a"
            what = thing.removeprefix("red ")
            picture = artist(f"{article} {name} {what}", [1])[0]
            angle = metric.mean_hue(picture)
            hits[name].append(angle is not None and metric.nearest_hue(angle, hues) == name)
    every = [hit for each in hits.values() for hit in each]
    by_colour = {name: f"{sum(each)} of {len(each)}" for name, each in hits.items()}
    return {"hue as asked": share(every), "by chance": 1 / len(HUES), "by colour": by_colour}


def check_grounds(emoji: metric.Emoji, artist: Artist, count: int) -> dict[str, Any]:
    """Whether the border of "NAME on a COLOUR background" is nearest that colour of all named."""
    grounds = [name for name in COLOURS if name != "white"]
    hits: dict[str, list[bool]] = {name: [] for name in grounds}
    plain = []
    for thing in THINGS[:count]:
        plain.append(metric.border_colour(artist(thing, [1])[0], COLOURS) == "white")
        for name in grounds:
            article = "an" if name == "orange" else "a"
            picture = artist(f"{thing} on {article} {name} background", [1])[0]
            hits[name].append(metric.border_colour(picture, COLOURS) == name)
    every = [hit for each in hits.values() for hit in each]
    return {
        "border as asked": share(every),
        "white when nothing is said": share(plain),
        "by chance": 1 / len(COLOURS),
        "by colour": {name: f"{sum(each)} of {len(each)}" for name, each in hits.items()},
    }


def check_negative(emoji: metric.Emoji, artist: Artist, count: int) -> dict[str, Any]:
    """Whether a negative prompt makes the reddest emoji less red: "red" alone, or "red NAME".

    The model was trained on "red NAME", never on a colour alone.
    """
    base = [i for i in emoji.base if "red" not in emoji.rows[i]["text"].split()]
    reddest = sorted(base, key=lambda i: -metric.redness(emoji.pictures[i]))[:count]
    names = [emoji.rows[i]["text"] for i in reddest]
    without = [metric.redness(artist(name, [1])[0]) for name in names]
    found: dict[str, Any] = {}
    for label, form in (('negative "red NAME"', "red {}"), ('negative "red"', "red")):
        left = [metric.redness(artist(n, [1], negative=form.format(n))[0]) for n in names]
        found[f"{label}: less red"] = share([a < b for a, b in zip(left, without, strict=True)])
        ratios = [a / b if b else 1.0 for a, b in zip(left, without, strict=True)]
        found[f"{label}: redness left, median"] = float(np.median(ratios))
    return found


def percent(value: dict[str, Any]) -> str:
    return (
        f"**{100 * value['share']:.1f} %** ({100 * value['low']:.1f} to {100 * value['high']:.1f}, "
        f"n = {value['of']})"
    )


def markdown(fields: dict[str, Any]) -> str:
    lines = [f"# What `{fields['model']}` draws", "", machine.line(fields["machine"]), ""]
    lines += [
        f"Guidance {fields['scale']:g}, {fields['steps']} steps, {fields['drawn']} pictures in "
        f"{fields['seconds']:.0f} s. Shares with 95 % intervals (Wilson; pictures of one name are "
        "not independent of each other). "
        + " ".join((metric.__doc__ or "").split("\n\n")[1].split()),
    ]
    for part in (part for part in PARTS if part in fields):
        lines += ["", f"## {part.capitalize()}", "", "| | |", "|---|---|"]
        lines += [f"| {name} | {cell(value)} |" for name, value in flat(fields[part])]
    return "\n".join(lines)


def flat(fields: dict[str, Any], before: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in fields.items():
        label = f"{before}{name}"
        if isinstance(value, dict) and "share" not in value and any(
            isinstance(v, dict) for v in value.values()
        ):  # fmt: skip
            found += flat(value, f"{label}: ")
        else:
            found.append((label, value))
    return found


def cell(value: Any) -> str:
    if isinstance(value, dict) and "share" in value:
        return percent(value)
    if isinstance(value, dict):
        return ", ".join(f"{name}: {inner}" for name, inner in value.items())
    if isinstance(value, list):
        return f"{len(value)}: " + "; ".join(
            f"{miss['name']} (looks like {miss['looks like'][0]})" for miss in value
        )
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def main(
    model: str = typer.Argument("emoji"),
    data: Path = Path("../shared/data/noto-emoji"),
    names: int = 200,
    seeds: int = 3,
    guidance: float | None = None,
    steps: int | None = None,
    probes: int = typer.Option(12, help="Things in colours and on grounds; x 3 elsewhere."),
    only: str | None = typer.Option(None, help=f"Comma-separated: {', '.join(PARTS)}."),
    threads: int = 2,
    device: str | None = None,
    out: Path = machine.RESULTS,
    sheet: Path | None = None,
) -> None:
    """Measure a model that was trained on noto-emoji.

    --sheet FILE also saves one picture of the first 240 that were drawn.
    """
    torch.set_num_threads(threads)
    parts = PARTS if only is None else tuple(only.split(","))
    unknown = set(parts) - set(PARTS)
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: expected some of {', '.join(PARTS)}")
    facts = machine.describe(threads)
    emoji = metric.read(data)
    loaded = dr.load(model, device=device)
    artist = Artist(loaded, guidance, steps)
    fields: dict[str, Any] = {
        "model": Path(model).name,
        "machine": facts,
        "scale": artist.guidance,
        "steps": steps or loaded.settings.get("steps", 30),
    }
    checks: dict[str, Callable[[], dict[str, Any]]] = {
        "guidance": lambda: check_guidance(emoji, artist, 3 * probes),
        "colours": lambda: check_colours(emoji, artist, probes),
        "grounds": lambda: check_grounds(emoji, artist, probes),
        "negative": lambda: check_negative(emoji, artist, 3 * probes),
    }
    if "names" in parts:
        fields["names"], pictures = check_names(emoji, artist, names, seeds)
        if sheet is not None:
            save_sheet(pictures[:240], sheet)
    for part, check in checks.items():
        if part in parts:
            fields[part] = check()
    fields |= {"drawn": artist.drawn, "seconds": artist.seconds}
    text = markdown(fields)
    paths = machine.write(out, f"emoji-names-{fields['model']}", fields, text)
    print(text, *map(str, paths), sep="\n")


def save_sheet(pictures: np.ndarray, path: Path) -> None:
    """Rows of 15, in the order of the names: three neighbours are one name."""
    from darkroom.images import grid

    images = [Image.fromarray((picture * 255).round().astype(np.uint8)) for picture in pictures]
    grid(images, columns=15).save(path)


if __name__ == "__main__":
    typer.run(main)
