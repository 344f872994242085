"""Points, boxes and masks to masks: against segment-anything's own predictor, and bad input."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import darkroom as dr
from darkroom.errors import ImageError, ModelMismatchError, ModelNotFoundError
from darkroom.models.resnet import ResNet, ResNetConfig
from darkroom.models.sam.config import (
    MOBILE_SAM,
    SAM_B,
    SamConfig,
    TinyVitConfig,
    VitConfig,
)
from darkroom.models.sam.folded import FoldedDecoder
from darkroom.models.sam.mask_decoder import MaskDecoder
from darkroom.models.sam.network import Sam
from darkroom.models.sam.tiny_vit import TinyVit
from darkroom.vision.segment import EncodedImage, Masks, Prompt, Segmenter, open_segmenter
from darkroom.weights.layout import convert
from darkroom.weights.layouts.sam.original import ORIGINAL, sam_sizes
from vectors.sam_originals import (
    BOX,
    GLOBAL,
    HEAD,
    HEADS,
    LARGE,
    POINTS,
    SIZE,
    WINDOW,
    picture,
    random_state,
    thinned,
)  # fmt: skip

VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors" / "sam_originals.json").read_text("utf-8")
)


def segmenter(config: SamConfig, state: dict[str, Tensor]) -> Segmenter:
    model = Sam(config).eval().requires_grad_(False)
    model.load_state_dict(ORIGINAL.convert(state, config))
    return Segmenter(model, "small")


@pytest.fixture(scope="module")
def small() -> Segmenter:
    state = random_state(VECTORS["small"]["shapes"])
    config = sam_sizes(state)
    config = replace(config, decoder=replace(config.decoder, heads=HEADS))
    assert isinstance(config.encoder, VitConfig)
    assert (config.encoder.window, config.encoder.global_layers) == (WINDOW, GLOBAL)
    return segmenter(config, state)


@pytest.fixture(scope="module")
def encoded(small) -> EncodedImage:
    return small.encode(Image.fromarray(picture(SIZE)))


def asked(scale: float = 1.0) -> dict[str, tuple[Prompt, int]]:
    """The questions of ``vectors.sam_originals.prompts``."""
    points = tuple((x * scale, y * scale) for x, y in POINTS)
    left, top, right, bottom = (x * scale for x in BOX)
    box = (left, top, right, bottom)
    return {
        "a point": (Prompt(points[:1], (True,)), 3),
        "a point, sure": (Prompt(points[:1], (True,)), 1),
        "points": (Prompt(points, (True, True, False)), 3),
        "a box": (Prompt(box=box), 1),
        "a box and points": (Prompt(points[1:], (True, False), box), 3),
    }


def compare(segmenter: Segmenter, image: np.ndarray, expected: dict, scale: float = 1.0) -> None:
    """All that SamPredictor said, within rounding."""
    encoded = segmenter.encode(Image.fromarray(image))
    assert close(thinned(encoded.features), expected["features"], 1e-4)
    calls = asked(scale)
    first = segmenter.masks(encoded, calls["a point"][0])
    points = calls["points"][0]
    calls["a second look"] = (replace(points, mask=first.low(0)), 1)
    assert calls.keys() == expected["prompts"].keys()
    for name, (prompt, candidates) in calls.items():
        said = expected["prompts"][name]
        found = segmenter.masks(encoded, prompt, candidates)
        assert found.logits.shape[1] == candidates
        assert close(found.scores[0].tolist(), said["scores"], 1e-4)
        assert close(thinned(found.logits), said["low"], 1e-3)
        full = torch.stack([found.full(0, k) for k in range(candidates)])
        assert full.shape[1:] == image.shape[:2]
        assert close(thinned(full), said["logits"], 1e-3)
        pixels = image.shape[0] * image.shape[1]
        for k, area in enumerate(said["areas"]):  # a pixel at the edge may fall either way
            assert abs(found.mask(0, k).area - area) <= max(2, 1e-4 * pixels)


def close(ours: list[float], theirs: list[float], tolerance: float) -> bool:
    a, b = np.array(ours), np.array(theirs)
    return a.shape == b.shape and float(np.abs(a - b).max()) <= tolerance * float(np.abs(b).max())


def test_equals_segment_anything(small):
    """Preprocessing, coordinates, every kind of prompt, a second look, sizes of masks."""
    compare(small, picture(SIZE), VECTORS["small"])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "config"), [("vit_b", SAM_B), ("vit_t", MOBILE_SAM)])
def test_equals_the_originals_at_full_size(name, config):
    with torch.device("meta"):
        state = Sam(config).state_dict()
    shapes = {k: list(t.shape) for k, t in ORIGINAL.revert(state, config).items()}
    if name == "vit_t":  # numbers are drawn for its classifier, too
        shapes |= {f"{HEAD[0]}weight": [1000, 320], f"{HEAD[0]}bias": [1000]}
        shapes |= {f"{HEAD[1]}weight": [320], f"{HEAD[1]}bias": [320]}
    found = segmenter(config, random_state(shapes))
    compare(found, picture(LARGE), VECTORS["full"][name], scale=LARGE[1] / SIZE[1])


@torch.no_grad()
def test_mobile_sams_encoder_equals_the_original():
    """With windows that are filled up, and one that is exactly the stage."""
    state = random_state(VECTORS["tiny"]["shapes"])
    encoder = TinyVitConfig(
        channels=(8, 16, 24, 32), blocks=(2, 1, 2, 1), heads=(2, 3, 4), windows=(5, 4, 6)
    )
    config = SamConfig(size=96, channels=256, encoder=encoder)
    model = TinyVit(config).eval()
    names = {f"image_encoder.{name}": tensor for name, tensor in state.items()}
    ours = convert(names, ORIGINAL.entries(config))
    model.load_state_dict({k.removeprefix("image_encoder."): t for k, t in ours.items()})
    pixels = torch.tensor(picture((96, 96))).permute(2, 0, 1)[None].float() / 100 - 1
    assert close(thinned(model(pixels), 400), VECTORS["tiny"]["features"], 1e-5)


def test_prompts_together_are_prompts_alone(small, encoded):
    """Of several kinds, in their order."""
    prompts = [
        Prompt(((3, 4),), (True,)),
        Prompt(box=(1, 2, 30, 40)),
        Prompt(((5, 6), (60, 44)), (True, False)),
        Prompt(((66.5, 44.9),), (False,), mask=torch.randn(1, 48, 48)),
        *(Prompt(((x, 20.0),), (True,)) for x in range(20)),
    ]
    together = small.masks(encoded, prompts)
    assert len(together) == 24
    assert together.logits.shape == (24, 3, 48, 48)
    for index in (0, 1, 2, 3, 4, 23):
        alone = small.masks(encoded, prompts[index])
        scale = alone.logits.abs().max()
        assert (together.logits[index] - alone.logits[0]).abs().max() < 1e-4 * scale
        assert (together.scores[index] - alone.scores[0]).abs().max() < 1e-4
    assert together.sources[3] == "small: not 66.5,44.9, mask"


def test_arrays_are_taken_as_points():
    prompt = Prompt(np.array([[1, 2.5]]), np.array([1]), np.array([0, 1, 2, 3], np.float32))  # pyright: ignore
    assert prompt == Prompt(((1, 2.5),), (True,), (0, 1, 2, 3))
    assert str(prompt) == "point 1,2.5, box 0,1,2,3"


def test_answers(small, encoded):
    answer = small.masks(encoded, Prompt(((20, 30),), (True,), box=(10, 5, 50, 40)))
    candidates = answer.of(0)
    assert [mask.values.shape for mask in candidates] == [SIZE] * 3
    assert [mask.score for mask in candidates] == sorted(answer.scores[0].tolist(), reverse=True)
    (best,) = answer.best()
    assert np.array_equal(best.values, candidates[0].values)
    assert best.source == "small: point 20,30, box 10,5,50,40"
    assert answer.low(0).shape == (1, 48, 48)
    assert torch.equal(answer.low(0, 2), answer.logits[0, 2:])


@pytest.mark.parametrize(("width", "height"), [(1, 1), (700, 1), (96, 200)])
def test_pictures_of_any_shape(small, width, height):
    image = Image.new("RGB", (width, height), "navy")
    encoded = small.encode(image)
    assert encoded.size == (height, width)
    assert max(encoded.scaled) == 96
    assert min(encoded.scaled) >= 1
    (mask,) = small.masks(encoded, Prompt(((0, 0),), (True,))).best()
    assert mask.values.shape == (height, width)


def test_pictures_that_cannot_be_read(small, tmp_path):
    with pytest.raises(ImageError, match="more than 50 million pixels"):
        path = tmp_path / "large.png"
        Image.new("1", (20_000, 20_000)).save(path)
        small.encode(path)
    (tmp_path / "no.jpg").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"no\.jpg: not a PNG, JPEG or WebP picture"):
        small.encode(tmp_path / "no.jpg")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "an empty prompt; give points, a box or a mask"),
        ({"points": ((1, 2), (3, 4)), "inside": (True,)}, "2 points and 1 words whether they"),
        ({"points": ((1, 2, 3),), "inside": (True,)}, "a point is x and y"),
        ({"points": ((1, float("nan")),), "inside": (True,)}, "a point is x and y"),
        ({"box": (1, 2, 3)}, "a box is left, top, right and bottom"),
        ({"box": (5, 5, 5, 9)}, "an empty box 5,5,5,9"),
        ({"box": (9, 5, 5, 9)}, "an empty box 9,5,5,9"),
    ],
)
def test_prompts_that_say_nothing(given, problem):
    with pytest.raises(ValueError, match=problem):
        Prompt(**given)


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        (Prompt(((67, 3),), (True,)), "point 67,3 lies outside of the picture, which is 67x45"),
        (Prompt(((-1, 3),), (True,)), "point -1,3 lies outside"),
        (Prompt(box=(1, 2, 68, 40)), "box 1,2,68,40 leaves the picture, which is 67x45"),
        (Prompt(mask=torch.zeros(1, 45, 67)), r"mask of shape \(1, 45, 67\), expected \(1, 48, 48"),
        ([], "no prompts; give one or more"),
    ],
)
def test_prompts_that_do_not_fit_the_picture(small, encoded, prompt, problem):
    with pytest.raises(ValueError, match=problem):
        small.masks(encoded, prompt)


def test_another_number_of_candidates(small, encoded):
    with pytest.raises(ValueError, match="2 candidates; expected 1, 3"):
        small.masks(encoded, Prompt(box=(1, 2, 3, 4)), 2)


def test_opened_by_name(tmp_path, small):
    for name in ("sam.safetensors", "folder"):
        dr.save(small.model, tmp_path / name)
        opened = open_segmenter(tmp_path / name, device="cpu")
        assert isinstance(opened, Segmenter)
        assert opened.name == name.removesuffix(".safetensors")
        assert opened.model.config == small.model.config
        answer = opened.masks(opened.encode(Image.fromarray(picture(SIZE))), asked()["a box"][0])
        assert isinstance(answer, Masks)
        assert answer.best()[0].source == f"{opened.name}: box 11,5,51,40"
    assert type(opened.model.mask_decoder) is FoldedDecoder
    plain = open_segmenter(tmp_path / "folder", device="cpu", accelerate=False)
    assert type(plain.model.mask_decoder) is MaskDecoder
    with pytest.raises(ModelNotFoundError, match="no model is called 'emoji-sum'"):
        open_segmenter("emoji-sum")
    other = ResNet(ResNetConfig(channels=4, blocks=(1, 1)))
    dr.save(other, tmp_path / "resnet")
    with pytest.raises(ModelMismatchError, match="a ResNet, which does not segment by points"):
        open_segmenter(tmp_path / "resnet", device="cpu")
