"""Make controlnet_aux.json: what controlnet_aux's networks and drawings put out.

The weights and the inputs can be drawn again by anyone, so the tests need only the outputs.
controlnet_aux pulls in packages that do not go with ours; its files are read from a folder into
which its wheel was unpacked, without its ``__init__``. It needs einops and OpenCV besides:
    PYTHONPATH=tests python tests/vectors/controlnet_aux.py FOLDER tests/vectors/controlnet_aux.json
"""

import base64
import hashlib
import io
import json
import sys
import types
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vectors.timm_resnet50 import random_state

Array = NDArray[np.floating]

WIDTH, HEIGHT = 128, 192  # of pictures; multiples of 64, so that nothing is resized
NETWORKS = {
    "hed": (1, 3, 64, 96),
    "mlsd": (1, 4, 64, 96),
    "mlsd-tiny": (1, 4, 64, 96),
    "openpose": (1, 3, 64, 96),
}
ABSENT = ("timm", "timm.models", "timm.models.layers", "timm.models.vision_transformer",
          "torchvision", "torchvision.transforms")  # fmt: skip
SKELETON = (  # a person's joints in a unit square, in OpenPose's order
    (0.50, 0.10), (0.50, 0.24), (0.36, 0.25), (0.25, 0.40), (0.20, 0.55), (0.64, 0.25),
    (0.76, 0.38), (0.83, 0.52), (0.42, 0.55), (0.40, 0.74), (0.38, 0.93), (0.58, 0.55),
    (0.61, 0.74), (0.64, 0.92), (0.46, 0.07), (0.54, 0.07), (0.41, 0.09), (0.60, 0.10),
)  # fmt: skip
LIMBS = (  # two joints, the first channel of the field
    (1, 2, 12), (1, 5, 20), (2, 3, 14), (3, 4, 16), (5, 6, 22), (6, 7, 24), (1, 8, 0), (8, 9, 2),
    (9, 10, 4), (1, 11, 6), (11, 12, 8), (12, 13, 10), (1, 0, 28), (0, 14, 30), (14, 16, 34),
    (0, 15, 32), (15, 17, 36), (2, 16, 18), (5, 17, 26),
)  # fmt: skip


def inputs(name: str) -> Tensor:
    """A network's input, of the size and range of normalised pictures."""
    noise = np.random.RandomState(7).random_sample(NETWORKS[name])
    return torch.from_numpy(noise * 255 if name == "hed" else noise - 0.5).float()


def sample(output: Tensor) -> Tensor:
    """Some 60 numbers from all over a network's output."""
    return output.flatten()[:: max(1, output.numel() // 60)]


def photograph(height: int = HEIGHT, width: int = WIDTH) -> NDArray[np.uint8]:
    """(H, W, 3): smooth shapes and some noise."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    draw = np.random.RandomState(3)
    pixels = np.zeros((height, width, 3))
    for colour in range(3):
        for _ in range(5):
            a, b, c = draw.standard_normal(3) * (9, 9, 3)
            pixels[..., colour] += np.tanh(4 * np.sin(a * x + b * y + c))
    pixels = 128 + 25 * pixels + draw.standard_normal(pixels.shape) * 2
    return pixels.clip(0, 255).astype(np.uint8)


def edge_maps() -> list[Tensor]:
    """What an edge network may say of a picture: logits at five scales."""
    draw, maps = np.random.RandomState(5), []
    for scale in range(5):
        height, width = HEIGHT >> scale, WIDTH >> scale
        y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
        waves = np.sin(7 * x + 4 * np.sin(5 * y)) * np.cos(6 * y - 3 * x)
        edges = 7 * np.exp(-((waves / 0.1) ** 2)) - 3 + draw.standard_normal((height, width)) * 0.3
        maps.append(torch.from_numpy(edges[None, None]).float())
    return maps


def line_maps() -> Tensor:
    """What a line network may say: 40 clear middles among noise."""
    draw = np.random.RandomState(6)
    maps = draw.standard_normal((1, 9, HEIGHT // 2, WIDTH // 2))
    maps[:, 0] -= 6
    maps[:, 1:5] *= 14
    for y, x in zip(draw.randint(8, 88, 40), draw.randint(8, 56, 40), strict=True):
        maps[0, 0, y, x] = draw.uniform(-1, 3)
    return torch.from_numpy(maps).float()


People = list[dict[int, tuple[float, float]]]  # joints, in parts of the picture's sides


def pair() -> People:
    """One whole person, one without an arm, and a limb of nobody."""
    first = {j: (0.05 + 0.55 * x, 0.04 + 0.9 * y) for j, (x, y) in enumerate(SKELETON)}
    second = {j: (0.5 + 0.48 * x, 0.3 + 0.68 * y) for j, (x, y) in enumerate(SKELETON)}
    for joint in (2, 3, 4, 16):
        del second[joint]
    return [first, second, {3: (0.85, 0.05), 4: (0.95, 0.17)}]


def crowd() -> People:
    """Seven people who overlap, each with joints that are hidden or out of place."""
    draw, people = np.random.RandomState(9), []
    for _ in range(7):
        left, top, wide, high = draw.uniform((-0.1, 0, 0.4, 0.5), (0.6, 0.4, 0.7, 0.9))
        person = {}
        for joint, (x, y) in enumerate(SKELETON):
            x, y = left + wide * x + draw.normal() * 0.02, top + high * y + draw.normal() * 0.02
            if 0 < x < 1 and 0 < y < 1 and draw.uniform() < 0.85:
                person[joint] = (x, y)
        people.append(person)
    return people


def pose_maps(people: People) -> tuple[Tensor, Tensor]:
    """What a pose network may say of people: fields (1, 38, h, w), joints (1, 19, h, w)."""
    wide, high = WIDTH * 184 / HEIGHT / 8, 184 / 8
    y, x = np.mgrid[: int(high), : int(wide + 1)] + 0.5
    draw = np.random.RandomState(8)
    fields = draw.standard_normal((38, *x.shape)) * 0.01
    joints = draw.standard_normal((19, *x.shape)) * 0.005
    for person in people:
        at = {j: np.array((px * wide, py * high)) for j, (px, py) in person.items()}
        for joint, (px, py) in at.items():
            spot = np.exp(-((x - px) ** 2 + (y - py) ** 2) / 1.2)
            joints[joint] = np.maximum(joints[joint], draw.uniform(0.7, 1) * spot)
        for a, b, channel in LIMBS:
            if a in at and b in at:
                distance = np.hypot(*(at[b] - at[a]))
                way = (at[b] - at[a]) / distance
                along = (x - at[a][0]) * way[0] + (y - at[a][1]) * way[1]
                aside = (x - at[a][0]) * way[1] - (y - at[a][1]) * way[0]
                on = (along > -1) & (along < distance + 1) & (abs(aside) < 1)
                fields[channel : channel + 2, on] = 0.9 * way[:, None]
    return torch.from_numpy(fields[None]).float(), torch.from_numpy(joints[None]).float()


def depth() -> Array:
    """A depth map (H, W), float32: a ball before a slope."""
    y, x = np.mgrid[-1 : 1 : HEIGHT * 1j, -1 : 1 : WIDTH * 1j]
    ball = np.sqrt(np.maximum(0, 0.4 - x**2 - y**2))
    return (200 * (1 + 0.3 * y + 3 * ball)).astype(np.float32)


def png(pixels: NDArray[np.uint8]) -> str:
    """A picture as text."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def from_png(text: str) -> NDArray[np.uint8]:
    """The pixels of ``png``."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


class Anything(types.ModuleType):
    """A module that is imported and not used."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return object


def main(folder: str, path: str) -> None:
    """Write the vectors."""
    package = Anything("controlnet_aux")
    package.__path__ = [str(Path(folder) / "controlnet_aux")]
    sys.modules["controlnet_aux"] = package
    for name in ABSENT:
        sys.modules[name] = Anything(name)
    util = import_module("controlnet_aux.util")
    hed = import_module("controlnet_aux.hed")
    line_models = import_module("controlnet_aux.mlsd.models.mbv2_mlsd_large")
    line_utils = import_module("controlnet_aux.mlsd.utils")
    mlsd = import_module("controlnet_aux.mlsd")
    openpose = import_module("controlnet_aux.open_pose")
    body = import_module("controlnet_aux.open_pose.body")

    vectors: dict[str, Any] = {"made_with": f"controlnet_aux 0.0.10, torch {torch.__version__}"}
    networks = {
        "hed": hed.ControlNetHED_Apache2(),
        "mlsd": line_models.MobileV2_MLSD_Large(),
        "mlsd-tiny": import_module(
            "controlnet_aux.mlsd.models.mbv2_mlsd_tiny"
        ).MobileV2_MLSD_Tiny(),
        "openpose": import_module("controlnet_aux.open_pose.model").bodypose_model(),
    }
    for name, network in networks.items():
        cut = name == "openpose"  # its file lacks the first part of each name
        shapes = {k: tuple(t.shape) for k, t in network.state_dict().items()}
        file = {k.partition(".")[2] if cut else k: shape for k, shape in shapes.items()}
        state = random_state(file)
        full = {k: state[k.partition(".")[2] if cut else k] for k in shapes}
        network.load_state_dict(full)
        network.eval()
        with torch.no_grad():
            output = network(inputs(name))
        outputs = output if isinstance(output, tuple) else (output,)
        vectors[name] = {
            "shapes": {k: list(file[k]) for k in sorted(file)},
            "outputs": [list(t.shape) for t in outputs],
            "values": [[float(f"{v:.6g}") for v in sample(t).tolist()] for t in outputs],
        }

    class Says(torch.nn.Module):
        """A network that has made up its mind."""

        def __init__(self, answer: Any) -> None:
            super().__init__()
            self.answer = answer
            self.parameter = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x: Tensor) -> Any:
            del x
            return self.answer

    size = {"detect_resolution": WIDTH, "image_resolution": WIDTH}
    picture = photograph()
    for name, options in {
        "soft": {},
        "safe": {"safe": True},
        "scribble": {"scribble": True},
    }.items():
        drawn = hed.HEDdetector(Says(edge_maps()))(picture, output_type="np", **size, **options)
        vectors[name] = png(drawn[..., 0])
    lines = line_utils.pred_lines(picture, Says(line_maps()), [HEIGHT, WIDTH], 0.1, 10.0)
    vectors["lines"] = [[round(float(v), 4) for v in line] for line in lines]
    drawn = mlsd.MLSDdetector(Says(line_maps()))(picture, 0.1, 10.0, output_type="np", **size)
    vectors["drawn lines"] = png(drawn[..., 0])

    for name, people in {"pair": pair(), "crowd": crowd()}.items():
        estimation = body.Body.__new__(body.Body)
        estimation.model = Says(pose_maps(people))
        detector = openpose.OpenposeDetector(estimation)
        vectors[name] = [
            [None if k is None else [k.x, k.y] for k in pose.body.keypoints]
            for pose in detector.detect_poses(picture)
        ]
        vectors[f"drawn {name}"] = png(detector(picture, output_type="np", **size))

    midas = import_module("controlnet_aux.midas")
    drawn, normals = midas.MidasDetector(Says(torch.from_numpy(depth())[None]))(
        picture, depth_and_normal=True, output_type="np", **size
    )
    vectors["depth"], vectors["normals"] = png(drawn[..., 0]), png(normals)
    palette = np.array(util.ade_palette(), np.uint8)
    vectors["palette"] = [list(palette.shape), hashlib.sha256(palette.tobytes()).hexdigest()]
    text = json.dumps(vectors, separators=(",", ":"))
    Path(path).write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
