"""Does the built-in inpainting model paint what fits its prompt and its surroundings?

python benchmarks/emoji_inpaint.py --data ../shared/data/noto-emoji

Three tasks, each done by the inpainting model and by the plain one with ``dr.Inpaint``'s blend:
half a picture is gone and named; a thing on a coloured ground becomes another one; a thing is put
into a box. The metric (emoji_metric.py) has learned nothing; pictures come from ``dr.develop``.
"""

import sys
import time
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
from darkroom.masks import Mask
from darkroom.training.augment import COLOURS

SIZE = metric.SIZE
SIDE = 40  # of the box that a thing is put into
GROUNDS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "gray")
RIM = 3  # pixels: how deep inside of its edge a mask is looked at


class Painter:
    """A model that paints under masks; checks that nothing else changes."""

    def __init__(self, name: str, guidance: float, steps: int) -> None:
        self.name, self.model = name, dr.load(name)
        self.guidance, self.steps = guidance, steps
        self.drawn, self.seconds, self.touched = 0, 0.0, 0

    def __call__(self, picture: np.ndarray, mask: np.ndarray, prompt: str) -> np.ndarray:
        """(64, 64, 3) in [0, 1] with what the mask (64, 64) says painted anew."""
        began = time.perf_counter()
        given = (picture * 255).round().astype(np.uint8)
        feature = dr.Inpaint(Image.fromarray(given), Mask(mask))
        (made,) = dr.develop(
            self.model, prompt, dr.Guidance(self.guidance), feature, seeds=[1], steps=self.steps
        )
        self.seconds += time.perf_counter() - began
        self.drawn += 1
        if self.drawn % 60 == 0:
            rate = self.drawn / self.seconds
            print(f"{self.name}: {self.drawn}, {rate:.2f} a second", file=sys.stderr, flush=True)
        result = np.asarray(made.image)
        self.touched += int((result != given)[~mask].sum())
        return result.astype(np.float32) / 255


def cut_outs(folder: Path, emoji: metric.Emoji, rows: np.ndarray, side: int = SIZE) -> np.ndarray:
    """(N, side, side, 4) in [0, 1], colours multiplied by alpha."""
    found = []
    for i in rows:
        with Image.open(folder / emoji.rows[i]["file_name"]) as image:
            small = image.convert("RGBA").convert("RGBa").resize((side, side), Image.Resampling.BOX)
        found.append(np.asarray(small, dtype=np.float32) / 255)
    return np.stack(found)


def over(things: np.ndarray, ground: str) -> np.ndarray:
    """(N, H, W, 3): cut-outs over a colour."""
    colour = np.array(COLOURS[ground], dtype=np.float32) / 255
    return things[..., :3] + (1 - things[..., 3:]) * colour


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """What lies within so many pixels of a mask (H, W), along rows and columns."""
    found = mask.copy()
    for _ in range(pixels):
        padded = np.pad(found, 1)
        near = (padded[1:-1, 2:], padded[1:-1, :-2], padded[2:, 1:-1], padded[:-2, 1:-1])
        found = found | near[0] | near[1] | near[2] | near[3]
    return found


def halves(emoji: metric.Emoji, rows: np.ndarray, painter: Painter) -> tuple[dict, list]:
    """Half of the picture is gone; its name is given."""
    fill, seams, drawn, sheet = [], [], [], []
    for k, i in enumerate(rows):
        picture, mask = emoji.pictures[i], np.zeros((SIZE, SIZE), bool)
        part = slice(0, SIZE // 2) if k % 2 else slice(SIZE // 2, None)
        mask[(part, slice(None)) if k % 4 < 2 else (slice(None), part)] = True
        made = painter(picture, mask, emoji.rows[i]["text"])
        fill.append(float(np.sqrt(((made - picture)[mask] ** 2).mean())))
        seams.append(seam(made, k % 4 < 2) - seam(picture, k % 4 < 2))
        drawn.append(made)
        sheet.append((picture, mask, made))
    seen = metric.verdicts(emoji, np.stack(drawn), rows)
    return {
        "the named emoji": emoji_names.share([v.exact for v in seen]),
        "RMS to what was there, under the mask, median": float(np.median(fill)),
        "step over the seam, more than the emoji's own, mean": float(np.mean(seams)),
    }, sheet


def seam(picture: np.ndarray, across_rows: bool) -> float:
    """Mean difference of colour between the two pixels on either side of the middle."""
    lines = picture if across_rows else picture.swapaxes(0, 1)
    return float(np.abs(lines[SIZE // 2] - lines[SIZE // 2 - 1]).mean())


def replaced(
    folder: Path, emoji: metric.Emoji, rows: np.ndarray, painter: Painter, said: bool
) -> tuple[dict, list]:
    """A thing on a coloured ground becomes the next one; ``said``: the prompt names the ground."""
    things, base = cut_outs(folder, emoji, rows), cut_outs(folder, emoji, emoji.base)
    right, grounds, sheet = [], [], []
    for k, i in enumerate(rows):
        wanted, ground = rows[(k + 1) % len(rows)], GROUNDS[k % len(GROUNDS)]
        picture = over(things[k][None], ground)[0]
        mask = grown(things[k, ..., 3] > 0, 4)
        mask |= grown(things[(k + 1) % len(rows), ..., 3] > 0, 4)
        text = emoji.rows[wanted]["text"]
        article = "an" if ground == "orange" else "a"
        made = painter(picture, mask, f"{text} on {article} {ground} background" if said else text)
        looks = metric.distances(made[None], over(base, ground))[0]
        own = looks[np.flatnonzero(emoji.base == wanted)[0]]
        right.append(bool(own <= looks.min() + 1e-9))
        empty = mask & ~grown(things[(k + 1) % len(rows), ..., 3] > 0, 1) & grown(~mask, RIM)
        if empty.sum() >= 10:
            colour = np.array(COLOURS[ground], dtype=np.float32) / 255
            away = np.sqrt(((made[empty] - colour) ** 2).mean(1))
            grounds.append(float((away < 0.1).mean()))
        sheet.append((picture, mask, made))
        del i
    return {
        "the named emoji": emoji_names.share(right),
        "of the rim that should be ground, has its colour, mean": float(np.mean(grounds)),
    }, sheet


def put(folder: Path, emoji: metric.Emoji, rows: np.ndarray, painter: Painter) -> tuple[dict, list]:
    """The next thing is put into a box of 40x40 pixels in one of five places."""
    base = cut_outs(folder, emoji, emoji.base)
    references = over(base, "white")
    right, groups, sheet = [], [], []
    for k, i in enumerate(rows):
        wanted, rest = rows[(k + 1) % len(rows)], SIZE - SIDE
        left, top = ((0, 0), (rest, 0), (0, rest), (rest, rest), (rest // 2, rest // 2))[k % 5]
        picture, mask = emoji.pictures[i], np.zeros((SIZE, SIZE), bool)
        mask[top : top + SIDE, left : left + SIDE] = True
        made = painter(picture, mask, emoji.rows[wanted]["text"])
        box = Image.fromarray(
            (made[top : top + SIDE, left : left + SIDE] * 255).round().astype(np.uint8)
        )
        large = np.asarray(box.resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.float32) / 255
        looks = metric.distances(large[None], references)[0]
        nearest = int(emoji.base[looks.argmin()])
        own = looks[np.flatnonzero(emoji.base == wanted)[0]]
        right.append(bool(own <= looks.min() + 1e-9))
        group = emoji.rows[wanted].get("subgroup", "")
        groups.append(right[-1] or (emoji.rows[nearest].get("subgroup") == group != ""))
        sheet.append((picture, mask, made))
    return {
        "the box looks like the named emoji": emoji_names.share(right),
        "or one of its subgroup": emoji_names.share(groups),
    }, sheet


def markdown(fields: dict[str, Any]) -> str:
    lines = [f"# What `{fields['model']}` paints", "", machine.line(fields["machine"]), ""]
    lines += [
        f"Guidance {fields['scale']:g}, {fields['steps']} steps, one seed, {fields['names']} emoji "
        f"chosen with a fixed seed, {fields['drawn']} pictures. `{fields['plain']}` paints by the "
        "blend of `dr.Inpaint`. Shares with 95 % intervals (Wilson).",
        "",
        f"Values outside of a mask that changed, of all pictures: {fields['touched']}.",
    ]
    for task, results in fields["tasks"].items():
        lines += [
            "",
            f"## {task}",
            "",
            f"| | {' | '.join(results)} |",
            f"|---|{'---|' * len(results)}",
        ]
        names = next(iter(results.values()))
        lines += [
            f"| {name} | {' | '.join(emoji_names.cell(r[name]) for r in results.values())} |"
            for name in names
        ]
    return "\n".join(lines)


def main(
    model: str = typer.Argument("emoji-inpaint"),
    plain: str = "emoji",
    data: Path = Path("../shared/data/noto-emoji"),
    names: int = 200,
    guidance: float = 3.0,
    steps: int = 20,
    threads: int = 1,
    out: Path = machine.RESULTS,
    sheet: Path | None = None,
) -> None:
    """Measure an inpainting model of noto-emoji beside the blend of a plain one.

    --sheet FOLDER also saves pictures: what was given, the mask, what each model made of it.
    """
    torch.set_num_threads(threads)
    facts = machine.describe(threads)
    emoji = metric.read(data)
    rows = emoji_names.named(emoji, names)
    painters = [Painter(name, guidance, steps) for name in (model, plain)]
    tasks = {
        "Half of the picture is gone, its name is given": lambda p: halves(emoji, rows, p),
        "A thing on a coloured ground becomes another": lambda p: replaced(
            data, emoji, rows, p, said=False
        ),
        "The same; the prompt names the ground": lambda p: replaced(
            data, emoji, rows, p, said=True
        ),
        "A thing is put into a box": lambda p: put(data, emoji, rows, p),
    }
    found: dict[str, dict[str, Any]] = {}
    for number, (task, do) in enumerate(tasks.items()):
        found[task], sheets = {}, []
        for painter in painters:
            found[task][Path(painter.name).name], pictures = do(painter)
            sheets.append(pictures)
            print(task, painter.name, found[task][Path(painter.name).name], file=sys.stderr)
        if sheet is not None:
            sheet.mkdir(parents=True, exist_ok=True)
            save_sheet(sheets, sheet / f"{number}.png")
    fields = {
        "model": Path(model).name,
        "plain": Path(plain).name,
        "machine": facts,
        "scale": guidance,
        "steps": steps,
        "names": names,
        "drawn": sum(painter.drawn for painter in painters),
        "touched": sum(painter.touched for painter in painters),
        "tasks": found,
    }
    paths = machine.write(out, f"emoji-inpaint-{fields['model']}", fields, markdown(fields))
    print(markdown(fields), *map(str, paths), sep="\n")


def save_sheet(sheets: list[list], path: Path, most: int = 48) -> None:
    """Four by four: given, with the mask in grey, then each model's."""
    images = []
    for row in list(zip(*sheets, strict=True))[:most]:
        picture, mask, _ = row[0]
        shown = [picture, np.where(mask[..., None], 0.5, picture), *(made for *_, made in row)]
        images += [Image.fromarray((p * 255).round().astype(np.uint8)) for p in shown]
    grid(images, columns=4 * (2 + len(sheets))).save(path)


if __name__ == "__main__":
    typer.run(main)
