"""Make fastsam.json: what Ultralytics' FastSAM puts out for weights that anyone can draw again.

Ultralytics is licensed AGPL-3.0, so it is no dependency: it runs as a tool, in an environment of
its own (pip install ultralytics), and the tests read what it wrote.
    python tests/vectors/fastsam.py tests/vectors/fastsam.json
"""

import hashlib
import json
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

WIDTH = 0.125  # of the network, where that of -s is 0.5
LONGEST = 160
SIZES = ((160, 96), (60, 160), (81, 144), (77, 120))  # height and width of the pictures
CONFIDENCE, OVERLAP = 0.4, 0.7
GAINS = {"cv2": 14.0, "cv3": 40.0, "cv4": 10.0}  # of the head's last convolutions


def seeded(name: str, shape: tuple[int, ...]) -> Tensor:
    """A tensor by its published name: activations stay of the order of one, some objects sure."""
    draw = np.random.RandomState(zlib.crc32(name.encode()))
    noise = draw.standard_normal(shape)
    parts = name.split(".")
    if parts[-1] == "num_batches_tracked":
        return torch.tensor(0)
    if "dfl" in parts:
        return torch.arange(shape[1]).float().view(shape)
    if len(shape) > 1:
        noise *= 1.5 / np.prod(shape[1:]) ** 0.5
        noise *= GAINS.get(parts[2], 1.0) if parts[1] == "22" and parts[4] == "2" else 1.0
        noise *= 8.0 if name.startswith("model.22.proto.cv3.") else 1.0
    elif parts[-1] == "running_var":
        noise = 0.5 + draw.random_sample(shape)
    else:
        noise = 0.1 * noise + (parts[-2] == "bn" and parts[-1] == "weight")
    return torch.from_numpy(np.asarray(noise, dtype=np.float32))


def picture(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8: discs of many colours on a slope."""
    draw, (height, width) = np.random.RandomState(seed), size
    y, x = np.mgrid[:height, :width]
    made = np.stack((60 + x * 80 // width, 90 + y * 60 // height, 120 + 0 * x), axis=-1)
    for _ in range(12):
        middle, radius = draw.random_sample(2) * size, (0.05 + 0.3 * draw.random_sample()) * width
        inside = (y - middle[0]) ** 2 + (x - middle[1]) ** 2 < radius**2
        made[inside] = draw.randint(0, 256, 3)
    return made.astype(np.uint8)


def shapes_of(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor of a state dictionary."""
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def digest(shapes: dict[str, tuple[int, ...]]) -> str:
    """One word for all names and shapes."""
    lines = "".join(f"{name} {list(shape)}\n" for name, shape in sorted(shapes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


def thinned(tensor: Tensor) -> list[float]:
    """Every 97th number."""
    return [round(float(value), 5) for value in tensor.flatten()[::97]]


def main(path: str) -> None:
    """Write the vectors."""
    import ultralytics
    from pycocotools import mask as coco
    from ultralytics.nn.tasks import SegmentationModel

    def network(letter: str) -> SegmentationModel:
        return SegmentationModel(f"yolov8{letter}-seg.yaml", nc=1, verbose=False)

    sizes = network("n").yaml
    sizes["scales"]["n"] = [0.33, WIDTH, 1024]
    model = SegmentationModel({**sizes, "scale": "n"}, nc=1, verbose=False).eval()
    shapes = shapes_of(model)
    model.load_state_dict({name: seeded(name, shape) for name, shape in shapes.items()})
    with torch.no_grad():
        seen = torch.from_numpy(picture((160, 96))).permute(2, 0, 1)[None] / 255
        (cells, prototypes), raw = model(seen)
    vectors = {
        "made_with": f"ultralytics {ultralytics.__version__}, torch {torch.__version__}",
        "keys": {letter: digest(shapes_of(network(letter))) for letter in "sx"},
        "logits": thinned(raw["boxes"]),
        "classes": thinned(raw["scores"]),
        "coefficients": thinned(raw["mask_coefficient"]),
        "cells": thinned(cells),
        "prototypes": thinned(prototypes),
        "pictures": [],
    }
    model.names, model.task, model.args = {0: "object"}, "segment", {"task": "segment"}
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "FastSAM-t.pt")
        torch.save({"model": model, "ema": None, "train_args": {"task": "segment"}}, file)
        for size in SIZES:
            found = {"size": list(size)}
            for retina in (True, False):
                (result,) = ultralytics.FastSAM(file)(
                    np.ascontiguousarray(picture(size)[..., ::-1]),  # it takes BGR
                    retina_masks=retina,
                    imgsz=LONGEST,
                    conf=CONFIDENCE,
                    iou=OVERLAP,
                    device="cpu",
                    verbose=False,
                )
                masks = result.masks.data.numpy().astype(np.uint8)
                runs = [coco.encode(np.asfortranarray(m))["counts"].decode() for m in masks]
                found["retina" if retina else "plain"] = {
                    "size": list(masks.shape[1:]),
                    "boxes": [[round(float(v), 3) for v in b] for b in result.boxes.xyxy],
                    "scores": [round(float(v), 5) for v in result.boxes.conf],
                    "masks": runs,
                }
            vectors["pictures"].append(found)
    with open(path, "w", encoding="utf-8") as file:
        file.write(json.dumps(vectors, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
