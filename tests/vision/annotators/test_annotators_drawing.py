"""Drawings and what leads to them, against controlnet_aux's and OpenCV's, pixel for pixel."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from scipy import ndimage
from torch import Tensor, nn

from darkroom.errors import ConfigError, ModelMismatchError
from darkroom.models.annotators.body_pose import BodyPose
from darkroom.models.annotators.line_segments import LineSegments
from darkroom.models.annotators.soft_edges import SoftEdges
from darkroom.vision.annotators import annotate
from darkroom.vision.annotators.drawing import WHITE, dot, limb, line
from darkroom.vision.annotators.lines import segments
from darkroom.vision.annotators.poses import poses, read
from darkroom.vision.annotators.resampling import area, blur, blur_bytes, lanczos, resize
from darkroom.vision.annotators.scenes import colours
from darkroom.vision.annotators.soft_edges import difference_lines
from darkroom.vision.annotators.surfaces import facing
from vectors import controlnet_aux as theirs

cv2 = pytest.importorskip("cv2")
PICTURE = Image.fromarray(theirs.photograph())
SIZE = {"resolution": theirs.WIDTH}


@pytest.fixture(scope="module")
def vectors() -> dict:
    """What controlnet_aux drew for networks that say what ``theirs`` has them say."""
    path = Path(__file__).parents[2] / "vectors" / "controlnet_aux.json"
    return json.loads(path.read_text("utf-8"))


class SaysEdges(SoftEdges):
    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.mean = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        assert x.shape == (1, 3, theirs.HEIGHT, theirs.WIDTH)
        assert torch.equal(x[0].permute(1, 2, 0), torch.from_numpy(np.array(PICTURE)).float())
        return theirs.edge_maps()


class SaysLines(LineSegments):
    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        assert x.shape == (1, 4, theirs.HEIGHT, theirs.WIDTH)
        assert float(x[:, 3].max()) == float(x[:, 3].min()) == pytest.approx(1 / 127.5 - 1)
        return theirs.line_maps()


class SaysPoses(BodyPose):
    def __init__(self, people: theirs.People) -> None:
        nn.Module.__init__(self)
        self.people = people
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        assert x.shape == (1, 3, 184, 128)  # 122 columns of the picture, then grey
        assert not x[..., 122:].any()
        return theirs.pose_maps(self.people)


def check(drawn: Image.Image, expected: str) -> None:
    pixels = theirs.from_png(expected)
    assert pixels.std() > 5
    assert (drawn.mode, drawn.size) == ("RGB", PICTURE.size)
    grey = pixels if pixels.ndim == 3 else pixels[..., None]
    assert np.array_equal(np.asarray(drawn), np.broadcast_to(grey, (*pixels.shape[:2], 3)))


# --- against controlnet_aux


def test_soft_edges(vectors: dict) -> None:
    check(annotate("hed", PICTURE, model=SaysEdges(), **SIZE), vectors["soft"])
    check(annotate("hed", PICTURE, model=SaysEdges(), safe=True, **SIZE), vectors["safe"])


def test_scribble(vectors: dict) -> None:
    check(annotate("scribble", PICTURE, model=SaysEdges(), **SIZE), vectors["scribble"])


def test_lines(vectors: dict) -> None:
    found = segments(theirs.line_maps(), 0.1, 10)
    assert np.abs(found - np.array(vectors["lines"])).max() < 1e-3
    drawn = annotate("mlsd", PICTURE, model=SaysLines(), score=0.1, length=10, **SIZE)
    check(drawn, vectors["drawn lines"])
    assert len(segments(theirs.line_maps(), 0.1, 40)) < len(segments(theirs.line_maps(), 0.7, 0))
    nothing = annotate("mlsd", PICTURE, model=SaysLines(), score=1, **SIZE)
    assert not np.asarray(nothing).any()


@pytest.mark.parametrize(("name", "people"), [("pair", theirs.pair()), ("crowd", theirs.crowd())])
def test_poses(vectors: dict, name: str, people: theirs.People) -> None:
    """Every joint of everybody is where controlnet_aux finds it, and so is every pixel."""
    model = SaysPoses(people)
    found = poses(*read(np.asarray(PICTURE), model))
    expected = [tuple(k and tuple(k) for k in pose) for pose in vectors[name]]
    assert len(expected) >= 2
    assert found == expected
    check(annotate("openpose", PICTURE, model=model, **SIZE), vectors[f"drawn {name}"])


def test_the_pair_is_where_it_was_put() -> None:
    """Within the two pixels that the network's coarse maps allow."""
    first, second, _ = theirs.pair()
    found = poses(*read(np.asarray(PICTURE), SaysPoses([first, second])))
    for person, pose in zip((first, second), found, strict=True):
        assert {j for j, joint in enumerate(pose) if joint} == person.keys()
        for j, (x, y) in person.items():
            assert abs(pose[j].x - x) * theirs.WIDTH < 2.5
            assert abs(pose[j].y - y) * theirs.HEIGHT < 2.5


def test_normals(vectors: dict) -> None:
    assert np.array_equal(facing(theirs.depth()), theirs.from_png(vectors["normals"]))
    with pytest.raises(ConfigError, match="background=2"):
        facing(theirs.depth(), background=2)


def test_colours_of_segments(vectors: dict) -> None:
    """ADE20K's, as ControlNet's training pictures have them."""
    drawn = colours(np.arange(150)[None])[0]
    digest = hashlib.sha256(drawn.tobytes()).hexdigest()
    assert [list(drawn.shape), digest] == vectors["palette"]


# --- against OpenCV


def test_drawn_lines() -> None:
    """Many of them leave the picture, or never touch it."""
    random = np.random.default_rng(0)
    for _ in range(500):
        a, b = (tuple(map(int, random.integers(-80, 140, 2))) for _ in range(2))
        expected, canvas = np.zeros((2, 60, 70, 3), np.uint8)
        cv2.line(expected, a, b, WHITE, 1)
        line(canvas, a, b, WHITE)
        assert np.array_equal(canvas, expected), (a, b)


def test_drawn_limbs() -> None:
    """As ControlNet draws them: a polygon along an ellipse."""
    random = np.random.default_rng(0)
    for index in range(200):
        ends = random.uniform(20, 280, (2, 2))
        if index % 2:
            ends[1] = (ends[0] + random.uniform(-30, 30, 2)).clip(20, 280)
        (x0, y0), (x1, y1) = ends
        angle = int(np.degrees(np.arctan2(y0 - y1, x0 - x1)))
        middle = int((x0 + x1) / 2), int((y0 + y1) / 2)
        axes = int(np.hypot(x0 - x1, y0 - y1) / 2), 4
        expected, canvas = np.zeros((2, 300, 300, 3), np.uint8)
        cv2.fillConvexPoly(expected, cv2.ellipse2Poly(middle, axes, angle, 0, 360, 1), WHITE)
        limb(canvas, tuple(ends[0]), tuple(ends[1]), 4, WHITE)
        assert np.array_equal(canvas, expected), ends


@pytest.mark.parametrize("radius", range(1, 9))
def test_drawn_dots(radius: int) -> None:
    for centre in ((20, 20), (2, 38)):
        expected, canvas = np.zeros((2, 40, 40, 3), np.uint8)
        cv2.circle(expected, centre, radius, WHITE, -1)
        dot(canvas, centre, radius, WHITE)
        assert np.array_equal(canvas, expected)


def test_resizing() -> None:
    values = np.random.default_rng(0).standard_normal((37, 53, 3)).astype(np.float32)
    for (height, width), way in (((80, 121), cv2.INTER_LANCZOS4), ((20, 31), cv2.INTER_AREA)):
        expected = cv2.resize(values, (width, height), interpolation=way)
        assert np.abs(resize(values, height, width) - expected).max() < 5e-5
    for weights in (area(9, 4), lanczos(4, 9)):
        assert np.allclose(weights.sum(1), 1)


def test_blurring() -> None:
    random = np.random.default_rng(0)
    values = random.standard_normal((37, 53)).astype(np.float32)
    assert np.abs(blur(values, 3, 12) - cv2.GaussianBlur(values, (0, 0), 3)).max() < 1e-5
    expected = ndimage.gaussian_filter(values.astype(np.float64), 3)
    assert np.abs(blur(values, 3, 12, "symmetric") - expected).max() < 1e-12
    for sparse in (1.0, 0.002):
        pixels = (random.integers(0, 256, (70, 90)) * (random.random((70, 90)) < sparse)).astype(
            np.uint8
        )
        assert np.array_equal(blur_bytes(pixels, 3.0, 9), cv2.GaussianBlur(pixels, (0, 0), 3.0))


def test_scribble_without_a_network() -> None:
    """The formula of ControlNet's scribbles, and no wrapping of large differences at 256."""
    picture = PICTURE.copy()
    ImageDraw.Draw(picture).ellipse((20, 30, 100, 150), outline=(60, 20, 90), width=3)
    pixels = np.asarray(picture)
    fine, coarse = (cv2.GaussianBlur(pixels.astype(np.float32), (0, 0), s) for s in (0.5, 5.0))
    dark = 255 - (255 - (coarse - fine).min(-1)).clip(0, 255).astype(np.uint8)
    expected = 2 * dark.astype(int) > 32
    drawn = np.asarray(annotate("scribble", picture, **SIZE))[..., 0] == 255
    assert 0.01 < expected.mean() < 0.5
    assert np.count_nonzero(drawn != expected) <= 2  # float32 there, float64 here
    line_art = np.full((64, 64, 3), 255, np.uint8)
    line_art[30:33] = 0
    assert difference_lines(line_art, 32)[31].all()


# --- the door


@pytest.mark.parametrize(
    ("kind", "options", "error", "message"),
    [
        ("hed", {}, ConfigError, "'hed' needs a network; load hf:lllyasviel/Ann.*:ControlNetHED"),
        ("openpose", {}, ConfigError, "load hf:.*:body_pose_model.pth"),
        ("hed", {"model": nn.Linear(1, 1)}, ModelMismatchError, "not a Linear"),
        ("mlsd", {"model": nn.Linear(1, 1)}, ModelMismatchError, "mlsd_large_512_fp32.pth"),
        ("openpose", {"model": SaysLines()}, ModelMismatchError, "not a SaysLines"),
        ("scribble", {"model": SaysLines()}, ModelMismatchError, "not a SaysLines"),
        ("mlsd", {"model": SaysLines(), "score": 2}, ConfigError, "score=2"),
        ("mlsd", {"model": SaysLines(), "length": -1}, ConfigError, "length=-1"),
        ("hed", {"model": SaysEdges(), "resolution": 3}, ConfigError, "resolution 3"),
        ("scribble", {"threshold": -1}, ConfigError, "threshold -1"),
        ("scribble", {"threshold": 9, "model": SaysEdges()}, ConfigError, "has no threshold"),
        ("mlsd", {"model": SaysLines(), "lenght": 3}, ConfigError, "did you mean 'length'"),
    ],
)
def test_one_line_errors(kind: str, options: dict, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        annotate(kind, PICTURE, **options)


def test_hints_have_the_picture_s_size() -> None:
    """Networks see another one; what they find is brought back."""
    large = PICTURE.resize((256, 384))
    hint = annotate("scribble", large, resolution=128)
    assert hint.size == large.size
    odd = PICTURE.resize((77, 131))
    assert annotate("scribble", odd).size == odd.size
