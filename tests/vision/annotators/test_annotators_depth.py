"""Depth and normals: equal to transformers' depth, and drawn as controlnet_aux draws them."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from transformers import DPTImageProcessorPil

from darkroom.errors import ConfigError, ModelMismatchError
from darkroom.images import open_depth
from darkroom.models.dpt.network import DPT
from darkroom.vision.annotators import annotate
from darkroom.vision.annotators.depth import depth_picture, estimate_depth, grey
from darkroom.weights.layouts.annotators import dpt, dpt_configs
from generation.control import depth_pair
from generation.xl.pairs import photo

SIZE = (192, 128)


@pytest.fixture(scope="module")
def theirs():
    return depth_pair.network()


@pytest.fixture(scope="module")
def network(theirs) -> DPT:
    ours = DPT(depth_pair.CONFIG).eval()
    ours.load_state_dict(dpt.TRANSFORMERS.convert(theirs.state_dict(), ours.config))
    return ours


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    return photo().resize(SIZE, Image.Resampling.BICUBIC)


@torch.no_grad()
def test_estimate(theirs, network, picture) -> None:
    """At the picture's size, whatever the network looked at."""
    processor = DPTImageProcessorPil(**dpt_configs.view_json(network.config.view))
    output = theirs(processor(picture, return_tensors="pt").pixel_values)
    sizes = [(picture.height, picture.width)]
    expected = processor.post_process_depth_estimation(output, sizes)[0]["predicted_depth"]
    found = estimate_depth(network, picture)
    assert found.dtype == np.float32
    assert expected.std() > 0.01
    assert np.abs(found - expected.numpy()).max() < 1e-5


def test_depth_is_drawn_as_midas_draws_it(network, picture) -> None:
    """(depth - least) / most * 255, rounded down; the nearest is white."""
    with torch.no_grad():
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
        raw = network(pixels / 127.5 - 1)[0].numpy()
    drawn = annotate("depth", picture, model=network, resolution=128)
    assert drawn.size == SIZE
    above = raw - raw.min()
    expected = (above / above.max() * 255.0).clip(0, 255).astype(np.uint8)
    assert np.array_equal(np.asarray(drawn), np.repeat(expected[..., None], 3, 2))
    values = np.asarray(drawn)[..., 0]
    assert (values.min(), values.max()) == (0, 255)
    assert values.flat[raw.argmax()] == 255


def test_normals_are_drawn_as_midas_draws_them(network, picture) -> None:
    """Sobel slopes across and down, and a constant towards the viewer, as blue, green and red."""
    with torch.no_grad():
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float()
        raw = network(pixels / 127.5 - 1)[0].numpy()
    kernel = np.outer([1, 2, 1], [-1, 0, 1]).astype(np.float32)
    x, y = (ndimage.correlate(raw, k, mode="mirror") for k in (kernel, kernel.T))
    far = (raw - raw.min()) / (raw - raw.min()).max() < 0.1
    x[far], y[far] = 0, 0
    normal = np.stack((x, y, np.full_like(x, 2 * np.pi)), 2)
    normal /= (normal**2).sum(2, keepdims=True) ** 0.5
    expected = (normal * 127.5 + 127.5).clip(0, 255).astype(np.uint8)
    drawn = np.asarray(annotate("normal", picture, model=network, resolution=128))
    assert len(np.unique(drawn)) > 2
    difference = np.abs(drawn[..., ::-1].astype(int) - expected)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


def test_another_size(network, picture) -> None:
    odd = picture.resize((70, 50))
    assert annotate("depth", odd, model=network, resolution=64).size == (70, 50)
    assert estimate_depth(network, odd).shape == (50, 70)


def test_depth_pictures_are_depth_maps(network, picture, tmp_path) -> None:
    """Saved with 16 bits, read back, and equal but for unit and rounding."""
    found = estimate_depth(network, picture)
    depth_picture(found).save(tmp_path / "depth.png")
    read = open_depth(tmp_path / "depth.png")
    assert (read.min(), read.max(), read.shape) == (0, 65535, found.shape)
    back = read / 65535 * (found.max() - found.min()) + found.min()
    assert np.abs(back - found).max() < 1e-5 * found.max()


def test_flat() -> None:
    assert not np.asarray(depth_picture(np.full((4, 4), 3.0, np.float32))).any()
    assert not grey(np.full((4, 4), 3.0, np.float32)).any()


def test_bad_input(picture) -> None:
    with pytest.raises(ModelMismatchError, match=r"depth needs a DPT network .* not a Linear"):
        annotate("depth", picture, model=torch.nn.Linear(1, 1))
    with pytest.raises(ConfigError, match=r"load dpt_hybrid-midas-501f0c75\.pt"):
        annotate("depth", picture)
