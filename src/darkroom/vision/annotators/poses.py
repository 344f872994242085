"""Body poses: maps of joints and fields of limbs to people (Cao et al., arXiv:1611.08050)."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from darkroom.errors import ModelMismatchError
from darkroom.models.annotators.body_pose import BodyPose
from darkroom.vision.annotators.drawing import Canvas, at_resolution, dot, limb, to_picture
from darkroom.vision.annotators.resampling import blur, resize

JOINTS = (
    "nose", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow",
    "left wrist", "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle",
    "right eye", "left eye", "right ear", "left ear",
)  # fmt: skip
LIMBS = (  # two joints, and the first of the two channels of their field
    (1, 2, 12), (1, 5, 20), (2, 3, 14), (3, 4, 16), (5, 6, 22), (6, 7, 24), (1, 8, 0), (8, 9, 2),
    (9, 10, 4), (1, 11, 6), (11, 12, 8), (12, 13, 10), (1, 0, 28), (0, 14, 30), (14, 16, 34),
    (0, 15, 32), (15, 17, 36), (2, 16, 18), (5, 17, 26),
)  # fmt: skip
DRAWN = 17  # limbs; the last two, from shoulder to ear, only join what is there
COLOURS = (
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0),
    (0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255),
    (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85),
)  # fmt: skip
STICK = 4  # half the width of a limb, and the radius of a joint, in pixels
SEEN = 184  # pixels of height that the network sees
STRIDE = 8
SURE, ALONG = 0.1, 0.05  # of a joint; of a limb at each of the points where it is looked at
POINTS = 10

Array = NDArray[np.floating]


class Joint(NamedTuple):
    """Where a joint is, in parts of the picture's width and height."""

    x: float
    y: float


Pose = tuple[Joint | None, ...]  # 18, in the order of JOINTS; None: not seen


def openpose(image: Image.Image, model: BodyPose, *, resolution: int = 512) -> Image.Image:
    """Stick figures on black.

    Args:
        resolution: of the shorter side of what poses are found and drawn in; rounded to 64.
    """
    pixels = at_resolution(image, resolution)
    height, width = pixels.shape[:2]
    return to_picture(draw(poses(*read(pixels, model)), height, width), image.size)


def read(pixels: Canvas, model: BodyPose) -> tuple[Array, Array]:
    """(H, W, 3), RGB, to fields (H, W, 38) and joints (H, W, 19), as large as the picture."""
    if not isinstance(model, BodyPose):
        raise ModelMismatchError(
            f"poses need a BodyPose network (body_pose_model.pth), not a {type(model).__name__}"
        )
    height, width = pixels.shape[:2]
    scale = SEEN / height
    rows, columns = int(height * scale), int(width * scale)
    small = resize(pixels, rows, columns).round().clip(0, 255)
    below, right = -rows % STRIDE, -columns % STRIDE
    padded = np.pad(small, ((0, below), (0, right), (0, 0)), constant_values=128)
    x = torch.from_numpy(padded[..., ::-1].copy() / 256 - 0.5).permute(2, 0, 1)[None]
    with torch.no_grad():
        fields, joints = model(x.to(next(model.parameters())))
    return _enlarged(fields, rows, columns, height, width), _enlarged(
        joints, rows, columns, height, width
    )


def _enlarged(maps: torch.Tensor, rows: int, columns: int, height: int, width: int) -> Array:
    values = maps[0].float().permute(1, 2, 0).cpu().numpy()
    whole = resize(values, values.shape[0] * STRIDE, values.shape[1] * STRIDE)
    return resize(whole[:rows, :columns], height, width)


class Peak(NamedTuple):
    """A place where a joint may be."""

    x: int
    y: int
    score: float


@dataclass
class Person:
    """Some of the peaks, by joint."""

    peaks: dict[int, Peak]
    score: float
    parts: int


def poses(fields: Array, joints: Array) -> list[Pose]:
    """People in fields (H, W, 38) and maps of joints (H, W, 19).

    Joints are the peaks of the blurred maps; limbs are the pairs of peaks between which the
    field points along the line; people are limbs that share a joint. Those of fewer than four
    joints, or with a mean score below 0.4, are left out.
    """
    height, width = joints.shape[:2]
    found = [peaks(joints[..., joint]) for joint in range(len(JOINTS))]
    people: list[Person] = []
    for index, (a, b, channel) in enumerate(LIMBS):
        for first, second, score in links(fields[..., channel : channel + 2], found[a], found[b]):
            _join(people, (a, first), (b, second), score, create=index < DRAWN)
    kept = [p for p in people if p.parts >= 4 and p.score / p.parts >= 0.4]
    return [
        tuple(
            Joint(p.peaks[joint].x / width, p.peaks[joint].y / height) if joint in p.peaks else None
            for joint in range(len(JOINTS))
        )
        for p in kept
    ]


def peaks(joint: Array) -> list[Peak]:
    """Where the blurred map (H, W) is not below its four neighbours, and above 0.1."""
    smooth = blur(joint, 3.0, 12, "symmetric")
    around = np.pad(smooth, 1)
    sides = (around[:-2, 1:-1], around[2:, 1:-1], around[1:-1, :-2], around[1:-1, 2:])
    at = np.logical_and.reduce([smooth > SURE, *(smooth >= side for side in sides)])
    return [Peak(int(x), int(y), float(joint[y, x])) for y, x in np.argwhere(at)]


def links(
    field: Array, starts: Sequence[Peak], ends: Sequence[Peak]
) -> Iterator[tuple[Peak, Peak, float]]:
    """Pairs of peaks that a limb's field (H, W, 2) joins, the surest first, each peak once."""
    candidates: list[tuple[float, int, int]] = []
    for i, start in enumerate(starts):
        for j, end in enumerate(ends):
            way = np.array((end.x - start.x, end.y - start.y), dtype=np.float64)
            distance = max(0.001, math.hypot(*way))
            x, y = (
                np.rint(np.linspace(p, q, POINTS)).astype(int)
                for p, q in ((start.x, end.x), (start.y, end.y))
            )
            along = field[y, x] @ (way / distance)
            score = along.mean() + min(0.5 * len(field) / distance - 1, 0)  # no limb is that long
            if np.count_nonzero(along > ALONG) > 0.8 * POINTS and score > 0:
                candidates.append((score, i, j))
    used: set[tuple[str, int]] = set()
    for score, i, j in sorted(candidates, key=lambda c: -c[0]):
        if not used & {("start", i), ("end", j)}:
            used |= {("start", i), ("end", j)}
            yield starts[i], ends[j], score


def _join(
    people: list[Person], a: tuple[int, Peak], b: tuple[int, Peak], score: float, create: bool
) -> None:
    """Add a limb to whoever has one of its joints; merge two people that it joins."""
    (start, first), (end, second) = a, b
    having = [p for p in people if p.peaks.get(start) == first or p.peaks.get(end) == second]
    if not having:
        if create:
            total = first.score + second.score + score
            people.append(Person({start: first, end: second}, total, 2))
        return
    person = having[0]
    other = having[1] if len(having) > 1 else None
    if other is not None and not person.peaks.keys() & other.peaks.keys():
        person.peaks |= other.peaks
        person.parts += other.parts
        person.score += other.score + score
        people[:] = [p for p in people if p is not other]
    elif other is not None or person.peaks.get(end) != second:
        person.peaks[end] = second
        person.parts += 1
        person.score += second.score + score


def draw(people: Sequence[Pose], height: int, width: int) -> Canvas:
    """Stick figures in OpenPose's colours on black, (H, W, 3): dark limbs, bright joints."""
    canvas = np.zeros((height, width, 3), np.uint8)
    for pose in people:
        at = [None if joint is None else (joint.x * width, joint.y * height) for joint in pose]
        for (a, b, _), (red, green, blue) in zip(LIMBS[:DRAWN], COLOURS, strict=False):
            start, end = at[a], at[b]
            if start and end:
                dark = int(red * 0.6), int(green * 0.6), int(blue * 0.6)
                limb(canvas, start, end, STICK, dark)
        for joint, colour in zip(at, COLOURS, strict=True):
            if joint:
                dot(canvas, (int(joint[0]), int(joint[1])), STICK, colour)
    return canvas
