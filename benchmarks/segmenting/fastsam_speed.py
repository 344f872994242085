"""FastSAM beside Ultralytics' own, in turns, with the same weights on the same picture.

    PYTHONPATH=src PYTHON benchmarks/segmenting/fastsam_speed.py
        [--size s x] [--rounds 5] [--threads 1] [--out NAME]

PYTHON is that of an environment with ultralytics (AGPL-3.0, so no dependency of Darkroom's). Two
things are timed, in processor time: the network on a picture that it sees as 1024x576, and all from
a picture of 1920x1080 to masks as fine as it. The weights are drawn; the threshold of confidence is
set so that some 30 objects are found, as in the book. Ultralytics fuses its convolutions and
normalisations as its predictor does; Darkroom runs as ``recommended`` says. "plain" is without.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from darkroom.acceleration import accelerate, recommended
from darkroom.models.fastsam.network import FASTSAM_S, FASTSAM_X, FastSAM, scaled
from darkroom.vision.fastsam import FastSegmenter
from darkroom.vision.letterbox import Letterbox
from darkroom.weights.layouts.fastsam.original import ORIGINAL

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
import machine

from vectors.fastsam import picture, seeded

NETWORKS = {"n": scaled(0.33, 0.25, 1024), "s": FASTSAM_S, "x": FASTSAM_X}
CALMER = {"n": 1.0, "s": 1.0, "x": 1.3 / 1.5}  # a deep network grows louder by itself
OBJECTS, OVERLAP = 30, 0.9


def measure(letter: str, rounds: int, longest: int = 1024) -> dict[str, Any]:
    """Milliseconds of both, least and median, and how far their answers differ."""
    import ultralytics
    from ultralytics.nn.tasks import SegmentationModel

    pixels = picture((1920 * longest // 1024, 1080 * longest // 1024))
    image, reverse = Image.fromarray(pixels), np.ascontiguousarray(pixels[..., ::-1])
    plain, drawn = network(letter, pixels)
    model = FastSAM(NETWORKS[letter]).eval()
    model.load_state_dict(plain.state_dict())
    accelerate(model, recommended(model))
    theirs = SegmentationModel(f"yolov8{letter}-seg.yaml", nc=1, verbose=False)
    theirs.load_state_dict(drawn)
    theirs.names, theirs.task, theirs.args = {0: "object"}, "segment", {"task": "segment"}

    confidence = _threshold(plain, image, longest)
    ours = FastSegmenter(model, longest=longest, confidence=confidence, overlap=OVERLAP)
    seen = torch.rand(1, 3, *Letterbox.of(pixels.shape[:2], longest).seen)
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "FastSAM.pt")
        torch.save({"model": theirs, "ema": None, "train_args": {"task": "segment"}}, file)
        opened = ultralytics.FastSAM(file)
    fused = theirs.eval().fuse(verbose=False)

    def whole() -> Any:
        return opened(
            reverse, retina_masks=True, imgsz=longest, conf=confidence, iou=OVERLAP,
            device="cpu", verbose=False,
        )[0]  # fmt: skip

    calls: dict[str, Callable[[], Any]] = {
        "network": lambda: model(seen),
        "network, plain": lambda: plain(seen),
        "network, ultralytics": lambda: fused(seen),
        "picture to masks": lambda: list(ours.everything(image)),
        "picture to masks, ultralytics": whole,
    }
    times: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        found, result = calls["picture to masks"](), whole()
        for _ in range(rounds + 1):
            for name, call in calls.items():
                began = time.process_time()
                call()
                times[name].append(time.process_time() - began)
    masks = result.masks.data.bool().numpy()
    differ = [int((a.values != b).sum()) for a, b in zip(found, masks, strict=False)]
    return {
        "network": letter,
        "objects": len(found),
        "objects, ultralytics": len(masks),
        "pixels that differ": sum(differ) if len(found) == len(masks) else None,
        "milliseconds": {
            name: {
                "least": round(1000 * min(spent[1:]), 1),
                "median": round(1000 * statistics.median(spent[1:]), 1),
            }
            for name, spent in times.items()
        },
    }


def network(letter: str, pixels: np.ndarray) -> tuple[FastSAM, dict[str, Tensor]]:
    """A network whose scores are spread, and its weights under their published names."""
    model = FastSAM(NETWORKS[letter]).eval()
    published = ORIGINAL.revert(model.state_dict(), model.config)
    drawn = {name: seeded(name, tuple(tensor.shape)) for name, tensor in published.items()}
    for name, tensor in drawn.items():
        if tensor.ndim > 1 and not name.startswith("model.22."):
            tensor *= CALMER[letter]
    model.load_state_dict(ORIGINAL.convert(drawn, model.config))
    seen = Letterbox.of(pixels.shape[:2], 320).see(pixels) / 255
    with torch.inference_mode():
        for level, logits in enumerate(model(seen).classes):
            drawn[f"model.22.cv3.{level}.2.bias"] -= logits.mean() + 1
    model.load_state_dict(ORIGINAL.convert(drawn, model.config))
    return model, drawn


def _threshold(model: FastSAM, image: Image.Image, longest: int) -> float:
    """Above which there are so many objects."""
    found = FastSegmenter(model, "", longest, 0.0, OVERLAP, OBJECTS + 1).encode(image)
    return float(found.scores[-1])


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Least times, and how many times as fast Darkroom is."""
    lines = [
        "| network | what | Darkroom, ms | Ultralytics, ms | times as fast |",
        "|---|---|--:|--:|--:|",
    ]
    for row in rows:
        spent = {name: one["least"] for name, one in row["milliseconds"].items()}
        for name in ("network", "network, plain", "picture to masks"):
            peer = spent[f"{name.removesuffix(', plain')}, ultralytics"]
            lines.append(
                f"| {row['network']} | {name} | {spent[name]:,.0f} | {peer:,.0f} "
                f"| {peer / spent[name]:.2f} |"
            )
    return lines


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", nargs="+", choices=list(NETWORKS), default=["s", "x"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--longest", type=int, default=1024)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", help="writes benchmarks/results/<date>-NAME.*")
    arguments = parser.parse_args()
    try:
        from ultralytics import __version__
    except ImportError:
        parser.error("ultralytics is not here; run this in an environment that has it")
    torch.set_num_threads(arguments.threads)
    about = machine.describe(arguments.threads)
    about["packages"]["ultralytics"] = __version__
    rows = []
    for letter in arguments.size:
        rows.append(measure(letter, arguments.rounds, arguments.longest))
        print(rows[-1], flush=True)
    counts = "; ".join(
        f"-{row['network']}: {row['objects']} objects here, {row['objects, ultralytics']} there, "
        f"{row['pixels that differ']} pixels of their masks differ"
        for row in rows
    )
    text = ["# FastSAM", "", machine.line(about), "", f"{counts}.", "", *table(rows)]
    print("\n".join(text))
    if arguments.out:
        fields = {"machine": about, "rows": rows}
        machine.write(machine.RESULTS, arguments.out, fields, "\n".join(text))


if __name__ == "__main__":
    main()
