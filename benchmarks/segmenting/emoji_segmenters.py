"""What do the built-in segmenters find? Composed scenes, CamVid's classes, real photographs.

python benchmarks/segmenting/emoji_segmenters.py --data ../shared/data

Scenes of 256 pixels are composed of emoji that training saw or did not (variants together), over
photographs that it saw or did not. A click goes to the innermost pixel of the object; corrections
to the innermost pixel of the larger part of what is wrong, as in arXiv:2304.02643, appendix D.
Beside the network: the box itself, GrabCut in the box, a flood fill of similar colour at the click.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import typer
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
import machine

import darkroom as dr
from darkroom.images import grid, open_image
from darkroom.masks import Mask, open_mask, overlay
from darkroom.training.data.camvid import CLASSES, camvid
from darkroom.training.data.scenes import Composer, SceneOptions, open_cutouts, open_grounds
from darkroom.training.metrics.masks import average_precision, average_recall, pairwise_iou, recall

SIZE, SEED = 256, 7_000_001  # of the scenes; training has the seeds 0 and 1
LEAST = 150  # pixels of a component of CamVid that is asked for
WANTED = ("car", "pedestrian", "bicyclist", "sign", "sky", "road", "building", "tree", "pavement")
PROMPTS = {  # of the book's photographs: points inside, or a box
    "truck.jpg": {"point": (500, 375), "box": (425, 600, 700, 875)},
    "dogs.jpg": {"point": (0.49, 0.6)},  # shares of width and height: the brown dog
    "cat.jpg": {"point": (0.5, 0.6)},
}


@dataclass(frozen=True)
class Case:
    """A picture, and masks (N, H, W) bool of what is to be found."""

    picture: Image.Image
    masks: np.ndarray


def innermost(where: np.ndarray) -> tuple[int, int]:
    """The pixel (x, y) of a mask (H, W) bool that is farthest from its edge."""
    padded = np.pad(where.astype(np.uint8), 1)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return int(x), int(y)


def tight(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Left, top, right, bottom."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def clicking(segmenter: Any, encoded: Any, truth: np.ndarray, clicks: int) -> list[np.ndarray]:
    """The answers to one click, two ... ``clicks``; an earlier answer goes back in."""
    points, inside, found, low = [innermost(truth)], [True], list[np.ndarray](), None
    for number in range(clicks):
        prompt = dr.Prompt(points=tuple(points), inside=tuple(inside), mask=low)
        masks = segmenter.masks(encoded, prompt, 3 if number == 0 else 1)
        found.append(masks.best()[0].values > 0)
        low = masks.low(0) if hasattr(masks, "low") else None
        missing, extra = truth & ~found[-1], found[-1] & ~truth
        more = missing.sum() >= extra.sum()
        points.append(innermost(missing if more else extra))
        inside.append(bool(more))
    return found


def grab_cut(picture: np.ndarray, truth: np.ndarray) -> np.ndarray:
    left, top, right, bottom = (int(side) for side in tight(truth))
    height, width = truth.shape
    if (left, top, right, bottom) == (0, 0, width, height):
        return np.ones_like(truth)  # no background to learn from
    marks = np.zeros(truth.shape, np.uint8)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    rectangle = (left, top, right - left, bottom - top)
    try:
        cv2.grabCut(picture[..., ::-1].copy(), marks, rectangle, *models, 5, cv2.GC_INIT_WITH_RECT)
    except cv2.error:
        return boxed(truth)
    return (marks == cv2.GC_FGD) | (marks == cv2.GC_PR_FGD)


def flooded(picture: np.ndarray, truth: np.ndarray) -> np.ndarray:
    mask = np.zeros((truth.shape[0] + 2, truth.shape[1] + 2), np.uint8)
    flags = 4 | cv2.FLOODFILL_MASK_ONLY | cv2.FLOODFILL_FIXED_RANGE | (1 << 8)
    cv2.floodFill(picture.copy(), mask, innermost(truth), 0, (30,) * 3, (30,) * 3, flags)
    return mask[1:-1, 1:-1] > 0


def boxed(truth: np.ndarray) -> np.ndarray:
    left, top, right, bottom = (int(side) for side in tight(truth))
    filled = np.zeros_like(truth)
    filled[top:bottom, left:right] = True
    return filled


def asked(segmenter: Any, cases: Sequence[Case]) -> dict[str, float]:
    """Mean IoU over all objects, of the network and of what needs none."""
    found: dict[str, list[float]] = {}

    def note(name: str, answer: np.ndarray, truth: np.ndarray) -> None:
        found.setdefault(name, []).append(iou(answer, truth))

    for case in cases:
        encoded, pixels = segmenter.encode(case.picture), np.asarray(case.picture)
        for truth in case.masks:
            one, _, three = clicking(segmenter, encoded, truth, 3)
            note("1 click", one, truth)
            note("3 clicks", three, truth)
            answer = segmenter.masks(encoded, dr.Prompt(box=tight(truth)), 1).best()[0]
            note("box", answer.values > 0, truth)
            note("flood fill at the click", flooded(pixels, truth), truth)
            note("the box itself", boxed(truth), truth)
            note("GrabCut in the box", grab_cut(pixels, truth), truth)
    means = {name: float(np.mean(values)) for name, values in found.items()}
    return means | {"objects": len(found["box"])}


def everything(segmenter: Any, cases: Sequence[Case], options: Any) -> dict[str, float]:
    """Recall and precision of what is found without being asked."""
    ious, scores = [], []
    for case in cases:
        masks = list(segmenter.everything(case.picture, *options))
        height, width = case.masks.shape[1:]
        stacked = np.array([mask.values > 0 for mask in masks]).reshape(-1, height, width)
        ious.append(pairwise_iou(torch.from_numpy(stacked), torch.from_numpy(case.masks)))
        scores.append(torch.tensor([mask.score or 0.0 for mask in masks]))
    return {
        "recall at IoU 0.5": recall(ious, 0.5),
        "recall at IoU 0.75": recall(ious, 0.75),
        "AR": average_recall(ious),
        "AP50": average_precision(ious, scores, 0.5),
        "masks per picture": sum(map(len, ious)) / max(len(ious), 1),
        "objects": sum(one.shape[1] for one in ious),
    }


def scenes(data: Path, count: int) -> dict[str, list[Case]]:
    """Composed of what training saw, and of what it did not."""
    made = {}
    photographs = data / "flickr8k", data / "flowers"
    for title, other_things, other_grounds in (
        ("emoji and backgrounds of training", False, False),
        ("held-out emoji", True, False),
        ("unseen backgrounds", False, True),
        ("held-out emoji on unseen backgrounds", True, True),
    ):
        cutouts = open_cutouts(data / "noto-emoji", aside=other_things)
        grounds = open_grounds(photographs, SIZE, 200, other_grounds)
        options = SceneOptions(size=SIZE, scale=(0.12, 0.85), least_area=100)
        composer = Composer(cutouts, grounds, options, SEED)
        made[title] = [
            Case(Image.fromarray(scene.pixels.permute(1, 2, 0).numpy()), scene.masks.numpy())
            for scene in map(composer.scene, range(count))
        ]
    return made


def street(data: Path, count: int) -> list[Case]:
    """Components of classes of CamVid's test scenes."""
    found = camvid(data / "camvid", "test")
    cases = []
    for i in torch.linspace(0, len(found) - 1, count).long().tolist():
        labels, masks = found.labels[i].numpy(), []
        for name in WANTED:
            number, parts = cv2.connectedComponents(
                (labels == CLASSES.index(name)).astype(np.uint8)
            )
            masks += [parts == k for k in range(1, number) if (parts == k).sum() >= LEAST]
        if masks:
            picture = Image.fromarray(found.pixels[i].permute(1, 2, 0).numpy())
            cases.append(Case(picture, np.stack(masks)))
    return cases


def photographs(segmenter: Any, inputs: Path, folder: Path | None) -> dict[str, Any]:
    """The book's own pictures; masks only where a true one is known."""
    found: dict[str, Any] = {}
    picture = open_image(inputs / "bench_dog.png")
    truth = open_mask(inputs / "bench_dog_mask.png").values > 0.5
    case = Case(picture, truth[None])
    found["bench_dog.png"] = asked(segmenter, [case])
    shown: list[Image.Image] = []
    prompts = [("bench_dog.png", kind) for kind in ("point", "box")]
    prompts += [(name, kind) for name, kinds in PROMPTS.items() for kind in kinds]
    for name, kind in prompts:
        picture = open_image(inputs / name)
        prompt = _prompt(name, kind, picture, truth)
        masks = segmenter.masks(segmenter.encode(picture), prompt, 3 if kind == "point" else 1)
        best = masks.best()[0]
        found[f"{name}, {prompt}"] = {
            "rated": best.score, "share of the picture": float((best.values > 0).mean())
        }  # fmt: skip
        shown += [_small(picture), _small(overlay(picture, [best], alpha=0.6))]
    for name in ("bench_dog.png", *PROMPTS):
        picture = open_image(inputs / name)
        masks = list(segmenter.everything(picture))
        found[f"{name}, everything"] = {"masks": len(masks)}
        masks = sorted(masks, key=lambda mask: -mask.area)
        shown += [_small(picture), _small(overlay(picture, masks, alpha=0.6))]
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        grid(shown, 4).save(folder / f"{segmenter.name}-photographs.png")
    return found


def _prompt(name: str, kind: str, picture: Image.Image, truth: np.ndarray) -> Any:
    if name == "bench_dog.png":
        box, point = tight(truth), innermost(truth)
    else:
        box, point = PROMPTS[name].get("box"), PROMPTS[name]["point"]
        if max(point) <= 1:
            point = point[0] * picture.width, point[1] * picture.height
    return dr.Prompt(points=(point,), inside=(True,)) if kind == "point" else dr.Prompt(box=box)


def _small(picture: Image.Image, size: int = 320) -> Image.Image:
    paper = Image.new("RGB", (size, size), "white")
    copy = picture.convert("RGB")
    copy.thumbnail((size, size))
    paper.paste(copy)
    return paper


def sheet(segmenter: Any, cases: Sequence[Case], path: Path) -> None:
    """Rows of picture, truth, one click, box, everything."""
    cells: list[Image.Image] = []
    for case in cases:
        encoded = segmenter.encode(case.picture)
        truth = [Mask(mask) for mask in case.masks]
        clicks = [Mask(clicking(segmenter, encoded, mask, 1)[0]) for mask in case.masks]
        boxes = [
            segmenter.masks(encoded, dr.Prompt(box=tight(mask)), 1).best()[0] for mask in case.masks
        ]
        cells.append(case.picture)
        for masks in (truth, clicks, boxes, list(segmenter.everything(case.picture))):
            cells.append(overlay(case.picture, masks, alpha=0.6))
    path.parent.mkdir(parents=True, exist_ok=True)
    grid(cells, 10).save(path)


def parts(
    segmenter: Any, data: Path, count: int, folder: Path | None
) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """(title, how to measure it)."""
    made = scenes(data, count)
    for title, cases in made.items():
        yield f"prompts: {title}", lambda cases=cases: asked(segmenter, cases)
    for title, cases in made.items():
        few = cases[: max(count // 4, 8)]
        yield f"everything: {title}", lambda few=few: everything(segmenter, few, ())
    if folder is not None:
        sheet(segmenter, list(made.values())[-1][:12], folder / f"{segmenter.name}-scenes.png")
    if (data / "camvid").is_dir():
        seen = street(data, max(count // 4, 8))
        yield "prompts: components of CamVid's classes", lambda: asked(segmenter, seen)
        if folder is not None:
            sheet(segmenter, seen[:6], folder / f"{segmenter.name}-camvid.png")
    if (data / "seed_inputs").is_dir():
        yield "photographs", lambda: photographs(segmenter, data / "seed_inputs", folder)


def table(rows: dict[str, dict[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(name for row in rows.values() for name in row))
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for title, row in rows.items():
        values = [row.get(name, "") for name in columns]
        cells = [f"{v:.3f}" if isinstance(v, float) else str(v) for v in values]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def markdown(fields: dict[str, Any]) -> str:
    lines = [f"# What `{fields['segmenter']}` finds", "", machine.line(fields["machine"]), ""]
    lines += [
        f"{fields['scenes']} composed scenes of {SIZE} pixels each (a quarter of them for "
        "`everything`), none of them from training. Mean IoU over objects; a click goes to the "
        "innermost pixel, corrections into what is wrong, boxes are exact. AR: the mean recall "
        "over IoU 0.5 to 0.95; AP50 is COCO's. Flood fill, box and GrabCut need no network.",
        "",
    ]
    results = fields["results"]
    for kind, title in (("prompts", "Asked for"), ("everything", "Everything, unasked")):
        chosen = {k.partition(": ")[2]: v for k, v in results.items() if k.startswith(f"{kind}: ")}
        if chosen:
            lines += [f"## {title}", "", *table(chosen), ""]
    if "photographs" in results:
        lines += ["## Photographs", ""]
        for name, row in results["photographs"].items():
            values = ", ".join(
                f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()
            )
            lines.append(f"* {name}: {values}")
    return "\n".join(lines)


def main(
    segmenter: str = typer.Argument("emoji-sam"),
    data: Path = Path("../shared/data"),
    scenes: int = 100,
    threads: int = 1,
    out: Path = machine.RESULTS,
    sheet: Path | None = None,
) -> None:
    """Measure a segmenter; --sheet FOLDER also saves pictures (photographs among them)."""
    torch.set_num_threads(threads)
    facts = machine.describe(threads)
    opened = dr.open_segmenter(segmenter)
    results = {}
    for title, measure in parts(opened, data, scenes, sheet):
        results[title] = measure()
        print(title, results[title], file=sys.stderr, flush=True)
    name = Path(segmenter).name
    fields = {"segmenter": name, "machine": facts, "scenes": scenes, "results": results}
    paths = machine.write(out, f"segmenters-{name}", fields, markdown(fields))
    print(markdown(fields), *map(str, paths), sep="\n")


if __name__ == "__main__":
    typer.run(main)
