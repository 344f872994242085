"""Every subset of the inference options runs, in any order, or is refused with the reason."""

import dataclasses
import functools
import random
from itertools import combinations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from darkroom.errors import ConfigError, ModelMismatchError
from darkroom.generation.adapters.embedding import Embedding
from darkroom.generation.adapters.lora import Lora
from darkroom.generation.control.depth import DepthGuide
from darkroom.generation.control.feature import Control
from darkroom.generation.generate import develop, generate
from darkroom.generation.guidance import Guidance
from darkroom.generation.image import ImageToImage
from darkroom.generation.inpaint import Inpaint
from darkroom.masks import Mask
from darkroom.models.control.controlnet import ControlNet
from generation import small

SIDE = 32
OPTIONS = (
    "image-to-image", "inpaint", "control", "second control", "depth", "lora", "embedding",
    "interval", "tiled",
)  # fmt: skip
SUBSETS = [set(some) for n in range(len(OPTIONS) + 1) for some in combinations(OPTIONS, n)]
# none, each, each pair, all but one, all: where two options meet for the first time
PAIRS = [some for some in SUBSETS if len(some) <= 2 or len(some) >= len(OPTIONS) - 1]


@functools.cache
def model(channels: int):
    return small.model(unet=dataclasses.replace(small.UNET, in_channels=channels), family="sd1")


def photo(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))


def mask() -> Mask:
    values = np.zeros((SIDE, SIDE), bool)
    values[5:25, 9:30] = True
    return Mask(values)


@functools.cache
def net(seed: int) -> ControlNet:
    """With weights where a new network has zeros."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = ControlNet.from_unet(model(4).unet, model(4).autoencoder.factor)
        for layer in (*found.zero, found.zero_middle):
            nn.init.normal_(layer.weight, std=0.1)
    return found.eval().requires_grad_(False)


@functools.cache
def changes() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    layers = {
        "lora_unet_down_blocks_0_resnets_0_conv1": model(4).unet.down[0].residual.conv1,
        "lora_te_text_model_encoder_layers_1_mlp_fc1": model(4)
        .text_encoder.towers[0]
        .model.blocks[1]
        .up,
    }
    found = {}
    for stem, layer in layers.items():
        out, *rest = layer.weight.shape
        found[f"{stem}.lora_down.weight"] = torch.randn((2, *rest), generator=g)
        found[f"{stem}.lora_up.weight"] = torch.randn((out, 2, *(1 for _ in rest[1:])), generator=g)
        found[f"{stem}.alpha"] = torch.tensor(1.0)
    return found


def features(asked: set[str]) -> list:
    g = torch.Generator().manual_seed(3)
    made = {
        "image-to-image": lambda: ImageToImage(photo(1), 0.7),
        "inpaint": lambda: Inpaint(photo(2), mask()),
        "control": lambda: Control(net(1), photo(3), name="one"),
        "second control": lambda: Control(net(2), photo(4), 0.5, end=0.6, name="two"),
        "depth": lambda: DepthGuide(None, np.arange(SIDE * SIDE).reshape(SIDE, SIDE)),
        "lora": lambda: Lora(changes(), 0.7, name="lora"),
        "embedding": lambda: Embedding(torch.randn(2, 24, generator=g), name="blob"),
    }
    guidance = Guidance(3.0, interval=(0.5, 1.0) if "interval" in asked else (0.0, 1.0))
    return [guidance, *(make() for option, make in made.items() if option in asked)]


def drawn(asked: set[str], given: list, channels: int | None = None) -> np.ndarray:
    taking = model(channels or (5 if "depth" in asked else 4))
    prompt = "a blob in the snow" if "embedding" in asked else "a fox in the snow"
    run = generate(
        taking, prompt, *given, seeds=[7], steps=3, size=(SIDE, SIDE), tile="tiled" in asked
    )
    assert all(torch.isfinite(step.x).all() for step in run)
    return np.asarray(run.pictures()[0].image)


@pytest.mark.parametrize("subsets", [PAIRS, pytest.param(SUBSETS, marks=pytest.mark.slow)])
def test_every_subset_runs_and_each_option_counts(subsets) -> None:
    assert (len(PAIRS), len(SUBSETS)) == (56, 2 ** len(OPTIONS))
    shuffle = random.Random(5).shuffle
    seen: dict[bytes, set[str]] = {}
    for number, asked in enumerate(subsets):
        given = features(asked)
        picture = drawn(asked, given)
        assert picture.shape == (SIDE, SIDE, 3)
        if "inpaint" in asked:
            outside = ~mask().values
            assert np.array_equal(picture[outside], np.asarray(photo(2))[outside])
        twin = seen.setdefault(picture.tobytes(), asked)
        assert twin ^ asked <= {"tiled"}, f"{asked} draws what {twin} does"  # one tile is the whole
        if number % 4 == 0:
            shuffle(given)
            assert np.array_equal(drawn(asked, given), picture), asked


def test_an_inpainting_network_composes_too() -> None:
    asked = set(OPTIONS) - {"depth", "tiled"}
    given = features(asked)
    picture = drawn(asked, given, channels=9)
    assert np.array_equal(drawn(asked, given[::-1], channels=9), picture)
    assert np.array_equal(picture[~mask().values], np.asarray(photo(2))[~mask().values])


@pytest.mark.parametrize(
    ("made", "channels", "reason"),
    [
        (lambda: [Inpaint(photo(2), mask()), *features({"depth"})], 9, "depth"),
        (lambda: [*features({"depth"}), Inpaint(photo(2), mask())], 9, "depth"),
        (lambda: features({"inpaint"}), 5, "a depth map: DepthGuide"),
        (lambda: features({"depth"}), 4, "depth"),
        (lambda: [*features({"image-to-image"}), Inpaint(photo(2), mask(), 0.5)], 4, "both say"),
        (
            lambda: [*features({"image-to-image"}), DepthGuide(photo(1), np.eye(SIDE))],
            5,
            "ImageToImage and DepthGuide both say what the run starts from",
        ),
        (lambda: [Guidance(2.0), Guidance(3.0)], 4, "two guidance features"),
        (lambda: [Control(net(1), photo(3).resize((48, 32)))], 4, "hint of 48x32"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(made, channels, reason) -> None:
    with pytest.raises((ConfigError, ModelMismatchError), match=reason):
        develop(model(channels), "a fox", *made(), steps=2, size=(SIDE, SIDE))
