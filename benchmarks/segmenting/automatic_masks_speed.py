"""How fast is everything in a photograph found? Against segment-anything's own generator.

    python benchmarks/segmenting/automatic_masks_speed.py PHOTOGRAPH --peer DIR [--out NAME]

DIR holds segment-anything (a clone, or ``pip install --target DIR --no-deps segment-anything-py``).
It takes two functions from torchvision, which has no build beside every PyTorch: here it is given
PIL's resize, which torchvision calls too, and our ``without_duplicates``, whose time is printed
and is nothing beside the rest. Both run in this process, with the same PyTorch, threads, weights
and options, in turns; the median counts, and the masks are compared.

The weights are random and of ViT-B's size; as in ``tests/vectors/sam_automatic.py`` a few are
changed so that masks have shapes. ``pred_iou`` is put where 40 % of the masks are above it, the
share that a look at part of the grid finds. With 2 threads, 32x32 points and 2 rounds the peer
takes most of it: some 7 minutes on a quiet EPYC, by its work per point; ``--rounds 1`` halves it.
"""

import argparse
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]

import machine  # noqa: E402

from darkroom.acceleration import accelerate, recommended  # noqa: E402
from darkroom.images import open_image  # noqa: E402
from darkroom.masks import Mask  # noqa: E402
from darkroom.models.sam.config import SAM_B, SamConfig  # noqa: E402
from darkroom.models.sam.network import Sam  # noqa: E402
from darkroom.vision.automatic_masks import Automatic, automatic_masks  # noqa: E402
from darkroom.vision.mask_filters import grid, without_duplicates  # noqa: E402
from darkroom.vision.segment import EncodedImage, Prompt, Segmenter  # noqa: E402
from darkroom.weights.layouts.sam.original import ORIGINAL  # noqa: E402
from vectors.sam_automatic import shaped_state  # noqa: E402

SEED, DECODER_SEED = 15, 10
SHARE = 0.4  # of the masks that are above pred_iou; real ones have a third to a half
OURS = "darkroom"
THEIRS = "segment-anything"
NAMES = {
    "points_per_side": "points_per_side",
    "pred_iou": "pred_iou_thresh",
    "stability": "stability_score_thresh",
    "offset": "stability_score_offset",
    "nms": "box_nms_thresh",
}


def weights(config: SamConfig) -> dict[str, torch.Tensor]:
    """Random ones whose masks have shapes, in segment-anything's names."""
    with torch.device("meta"):
        state = ORIGINAL.revert(Sam(config).state_dict(), config)
    shapes = {name: list(tensor.shape) for name, tensor in state.items()}
    rest = {k: shape for k, shape in shapes.items() if not k.startswith("image_encoder.")}
    return shaped_state(shapes, SEED) | shaped_state(rest, DECODER_SEED)


def ours(config: SamConfig, state: dict[str, torch.Tensor], fast: bool = True) -> Segmenter:
    model = Sam(config).eval().requires_grad_(False)
    model.load_state_dict(ORIGINAL.convert(state, config))
    if fast:
        accelerate(model, recommended(model))
    return Segmenter(model, OURS)


def threshold(segmenter: Segmenter, encoded: EncodedImage) -> float:
    """The IoU that ``SHARE`` of the masks of 6x6 points are above."""
    height, width = encoded.size
    prompts = [Prompt(((x * width, y * height),), (True,)) for x, y in grid(6).tolist()]
    return max(float(segmenter.masks(encoded, prompts).scores.quantile(1 - SHARE)), 1e-6)


def stand_in() -> None:
    """What segment-anything takes from torchvision."""
    names = ("", ".ops", ".ops.boxes", ".transforms", ".transforms.functional")
    modules: dict[str, Any] = {
        f"torchvision{n}": types.ModuleType(f"torchvision{n}") for n in names
    }
    boxes, pictures = modules["torchvision.ops.boxes"], modules["torchvision.transforms.functional"]

    def batched_nms(boxes, scores, categories, iou_threshold):
        started = time.perf_counter()
        kept = without_duplicates(boxes.numpy(), scores.numpy(), iou_threshold)
        LENT.append(time.perf_counter() - started)
        return torch.as_tensor(kept)

    boxes.batched_nms = batched_nms
    boxes.box_area = lambda box: (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    pictures.to_pil_image = Image.fromarray
    pictures.resize = lambda image, size: image.resize(size[::-1], Image.Resampling.BILINEAR)
    sys.modules.update(modules)


LENT: list[float] = []  # seconds of our function in the peer's runs


def peer(folder: Path, state: dict[str, torch.Tensor], options: Automatic) -> Any:
    """segment-anything's generator over a ViT-B of these weights."""
    stand_in()
    sys.path.insert(0, str(folder))
    from segment_anything import SamAutomaticMaskGenerator, sam_model_registry

    model = sam_model_registry["vit_b"]().eval()
    model.load_state_dict(state)
    given = {theirs: getattr(options, name) for name, theirs in NAMES.items()}
    return SamAutomaticMaskGenerator(model, **given, output_mode="coco_rle")


def timed(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """Seconds, seconds of processor time, and what came of it."""
    started, worked = time.perf_counter(), time.process_time()
    result = call()
    return time.perf_counter() - started, time.process_time() - worked, result


def agreement(a: list[dict], b: list[dict]) -> dict[str, float]:
    """How equal two lists of masks are, in their order."""
    pairs = [[Mask.from_rle(m["segmentation"]) for m in pair] for pair in zip(a, b, strict=False)]
    return {
        "masks": len(a),
        "of the peer": len(b),
        "least IoU": min((x.iou(y) for x, y in pairs), default=1.0),
        "equal boxes": sum(x["bbox"] == y["bbox"] for x, y in zip(a, b, strict=False)),
    }


def memory(image: Path, points: int, threads: int) -> float:
    """Peak megabytes of a fresh process that asks so many points a side."""
    command = [sys.executable, __file__, str(image), "--memory", "--points", str(points)]
    command += ["--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def peak() -> float:
    """Megabytes this process has held at most; ``ru_maxrss`` counts the one it came from, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photograph", type=Path)
    parser.add_argument("--peer", type=Path, help="a folder with the package segment_anything")
    parser.add_argument("--points", type=int, default=32, help="of a side of the grid")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--nms", type=float, default=0.7)
    parser.add_argument("--peaks", action="store_true", help="measure memory, too")
    parser.add_argument("--out", help="writes benchmarks/results/<date>-NAME.*")
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    facts: dict[str, Any] = {"machine": machine.describe(asked.threads)}
    picture, state = open_image(asked.photograph), weights(SAM_B)
    segmenter = ours(SAM_B, state)
    encoded = segmenter.encode(picture)
    options = Automatic(
        points_per_side=asked.points, pred_iou=threshold(segmenter, encoded),
        stability=0.8, offset=0.03, nms=asked.nms,
    )  # fmt: skip

    def ask() -> list[dict]:
        return [m.fields("coco_rle") for m in automatic_masks(segmenter, picture, options)]

    if asked.memory:
        ask()
        print(peak())
        return
    pixels, generator = np.asarray(picture), None
    if asked.peer:
        generator = peer(asked.peer, state, options)
    names = (OURS, THEIRS) if generator else (OURS,)
    seconds, parts, worked = ({name: [] for name in names} for _ in range(3))
    found: list[dict] = []
    theirs: list[dict] = []
    for turn in range(asked.rounds):
        for name in names if turn % 2 == 0 else names[::-1]:
            if name == OURS:
                parts[name].append(timed(lambda: segmenter.encode(picture))[0])
                took, work, found = timed(ask)
            else:
                assert generator is not None
                parts[name].append(timed(lambda: generator.predictor.set_image(pixels))[0])
                took, work, theirs = timed(lambda: generator.generate(pixels))
            seconds[name].append(took)
            worked[name].append(work)
            print(
                f"{name}: {took:.1f} s, encoding {parts[name][-1]:.1f}; {work:.1f} s of processors",
                flush=True,
            )
    facts |= {"picture": [picture.width, picture.height], "options": vars(options),
              "seconds": seconds, "encoding": parts, "worked": worked,
              "lent": sum(LENT)}  # fmt: skip
    if generator:
        facts["agreement"] = agreement(found, theirs)
    if asked.peaks:
        facts["peak_mb"] = {n: memory(asked.photograph, n, asked.threads) for n in (8, 32)}
    text = page(facts)
    print(text)
    if asked.out:
        machine.write(machine.RESULTS, asked.out, facts, text)


def page(facts: dict[str, Any]) -> str:
    """The figures as Markdown."""
    options = facts["options"]
    medians = {name: statistics.median(runs) for name, runs in facts["seconds"].items()}
    encoding = {name: statistics.median(runs) for name, runs in facts["encoding"].items()}
    worked = {name: statistics.median(runs) for name, runs in facts["worked"].items()}
    width, height = facts["picture"]
    lines = [
        "# Automatic masks", "", machine.line(facts["machine"]), "",
        f"SAM ViT-B with random weights, a photograph of {width}x{height}, "
        f"{options['points_per_side']}x{options['points_per_side']} points, pred_iou "
        f"{options['pred_iou']:.3f}, stability {options['stability']} with offset "
        f"{options['offset']}, nms {options['nms']}; one process, the same PyTorch and threads, "
        f"in turns, medians of {len(facts['seconds'][OURS])} rounds (fastest to slowest).", "",
        "| | seconds | of these encoding | of processors | slower by | by work |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for name, total in medians.items():
        runs = facts["seconds"][name]
        lines.append(
            f"| {name} | {total:.1f} ({min(runs):.1f}-{max(runs):.1f}) | {encoding[name]:.1f} | "
            f"{worked[name]:.1f} | {total / medians[OURS]:.2f} | "
            f"{worked[name] / worked[OURS]:.2f} |"
        )
    if "agreement" in facts:
        same = facts["agreement"]
        lines += [
            "",
            f"Masks: {same['masks']}, of the peer {same['of the peer']}; least IoU of a pair "
            f"{same['least IoU']:.6f}, equal boxes {same['equal boxes']}. The peer's stand-in for "
            f"torchvision's NMS took {facts['lent']:.3f} s of all its runs.",
        ]
    if "peak_mb" in facts:
        peaks = ", ".join(f"{mb:,.0f} MB with {n}x{n} points" for n, mb in facts["peak_mb"].items())
        lines += ["", f"Peak memory of a process of its own: {peaks}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
