"""Latents to pictures: in tiles as whole, previews, and how much memory it will take."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from bounded import LiveBytes
from cases import quick
from darkroom.errors import NotEnoughMemoryError
from darkroom.generation import memory
from darkroom.generation.decode import OVERLAP, TILE, decode, tiles_by_default
from darkroom.generation.generate import develop, generate
from darkroom.generation.preview import factors, preview
from darkroom.models.autoencoder import Autoencoder, AutoencoderConfig
from darkroom.models.tiny_autoencoder import TinyAutoencoder, TinyAutoencoderConfig
from darkroom.models.unet import SD15, SDXL, UNet, UNetConfig
from generation import small


def latents(height: int, width: int) -> torch.Tensor:
    return torch.randn(1, 4, height, width, generator=torch.Generator().manual_seed(0))


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    """In dB of the range of ``a``."""
    return -10 * math.log10(float(((a - b) / (a.max() - a.min())).square().mean()) + 1e-20)


@pytest.mark.parametrize("size", [(65, 64), (40, 100), (96, 112)])
def test_tiles_are_seamless_for_a_local_decoder(size) -> None:
    """The tiny autoencoder sees neighbours only, so tiles must blend to the same picture."""
    torch.manual_seed(0)
    local = TinyAutoencoder(TinyAutoencoderConfig(channels=8)).eval()
    model = dataclasses.replace(small.model(), autoencoder=local)
    whole, _ = decode(model, latents(*size))
    tiled, _ = decode(model, latents(*size), tile=True)
    assert tiled.shape == whole.shape == (1, 3, size[0] * local.factor, size[1] * local.factor)
    assert psnr(whole, tiled) > 60


def test_a_picture_of_one_tile_is_not_changed() -> None:
    model = small.model()
    whole, _ = decode(model, latents(TILE, 20))
    tiled, _ = decode(model, latents(TILE, 20), tile=True)
    torch.testing.assert_close(whole, tiled, rtol=0, atol=1e-5)


def test_tiles_of_the_real_autoencoder_are_near() -> None:
    """Its attention and norms see one tile at a time: with random weights 20 dB and more."""
    model = small.model()
    whole, _ = decode(model, latents(96, 96))
    tiled, _ = decode(model, latents(96, 96), tile=True)
    assert psnr(whole, tiled) > 20


def test_large_pictures_are_tiled_by_themselves() -> None:
    assert not tiles_by_default((1024, 1024), 8)
    assert tiles_by_default((1024, 1032), 8)
    assert OVERLAP < TILE
    model = small.model()
    assert not generate(model, "a", size=(512, 512)).params.tile
    assert generate(model, "a", size=(512, 516)).params.tile
    assert generate(model, "a", tile=True).params.tile


def test_a_batch_is_decoded_one_by_one() -> None:
    model = small.model()
    batch = torch.cat([latents(16, 16), latents(16, 16) / 2])
    together, _ = decode(model, batch)
    alone = torch.cat([decode(model, batch[k : k + 1])[0] for k in range(2)])
    assert torch.equal(together, alone)


def test_previews_show_colours() -> None:
    """Fitted to the model: what it encodes comes back in about its colour."""
    model = small.model()
    *_, step = generate(model, "a fox", seeds=[1, 2], steps=2)
    shown = preview(model, step.denoised)
    assert [picture.size for picture in shown] == [(16, 16)] * 2
    assert shown[0].tobytes() != shown[1].tobytes()
    mix, grey = factors(model)
    assert mix.shape == (4, 3)
    again = preview(model, step.denoised, colours=(mix, grey))
    assert again[0].tobytes() == shown[0].tobytes()
    preview(model, torch.full((1, 4, 16, 16), math.nan))  # a preview never stops a run


def test_the_fit_finds_a_linear_encoder() -> None:
    class Linear:
        factor, channels = 4, 4
        mix = torch.tensor([[1.0, 0, 0.5], [0, 1, 0], [0, 0.5, 1], [0.2, 0.2, 0.2]])

        def encode(self, image, noise=None):
            small = torch.nn.functional.avg_pool2d(image, 4)
            return torch.einsum("cr,brhw->bchw", self.mix, small) + 0.1

    model = dataclasses.replace(small.model(), autoencoder=Linear())
    red = torch.tensor([1.0, -1, -1]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    picture = preview(model, Linear().encode(red))[0]
    assert np.abs(np.asarray(picture, int) - [255, 0, 0]).max() <= 1


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_known_families_have_published_factors(family) -> None:
    model = dataclasses.replace(small.model(), family=family)
    mix, grey = factors(model)
    assert mix.shape == (4, 3)
    assert not grey.any()


def test_a_tiny_autoencoder_previews_at_full_size() -> None:
    model = small.model()
    decoder = TinyAutoencoder(TinyAutoencoderConfig(channels=8)).eval()
    assert preview(model, latents(16, 16), decoder)[0].size == (128, 128)


CONFIGS = {
    "sd15": (SD15, AutoencoderConfig()),
    "sdxl": (SDXL, AutoencoderConfig()),
    "small": (small.UNET, small.AUTOENCODER),
}


@pytest.mark.parametrize("name", quick(["sd15", "small"], CONFIGS))
def test_the_bound_is_above_the_count(name) -> None:
    with torch.device("meta"):
        unet, autoencoder = UNet(CONFIGS[name][0]), Autoencoder(CONFIGS[name][1])
    model = dataclasses.replace(small.model(), unet=unet, autoencoder=autoencoder)
    factor = autoencoder.factor
    for tile in (False, True):
        size = (32 * factor, 96 * factor)
        counted = memory.estimate(model, size, 2, tile=tile)
        bound = memory.bound(model, size, 2, tile=tile)
        assert counted is not None
        assert bound is not None
        assert counted.weights == bound.weights > 0
        assert counted.network <= bound.network <= 2.5 * counted.network
        assert counted.decoding <= bound.decoding <= 2.5 * counted.decoding


def test_the_count_grows_with_pixels_and_batch() -> None:
    model = small.model()
    one = memory.estimate(model, (64, 64), 1)
    four = memory.estimate(model, (128, 128), 1)
    batch = memory.estimate(model, (64, 64), 4)
    assert one is not None
    assert four is not None
    assert batch is not None
    assert 3.5 < four.network / one.network < 4.5
    assert 3.5 < batch.network / one.network < 4.5
    assert 3.5 < four.decoding / one.decoding < 4.5
    assert batch.decoding == one.decoding


def test_what_would_help_is_said() -> None:
    model = small.model()
    with pytest.raises(NotEnoughMemoryError) as caught:
        generate(model, "a", size=(512, 512), memory_limit=10**6, seeds=[1, 2])
    assert "fewer seeds" in str(caught.value)
    assert caught.value.exit_code == 4
    free = memory.available("cpu")
    assert free is None or free > 10**6


def test_after_a_refusal_the_next_run_is_the_same() -> None:
    model = small.model()
    before = develop(model, "a", steps=2)[0]
    for _ in range(3):
        with pytest.raises(NotEnoughMemoryError):
            develop(model, "a", size=(2048, 2048), memory_limit=10**7)
    assert develop(model, "a", steps=2)[0].image.tobytes() == before.image.tobytes()


UNET = UNetConfig(channels=(96, 192, 192), heads=(4,) * 3, depth=(1, 1, 0))
VAE = AutoencoderConfig(channels=(64, 128, 128, 128))


@pytest.mark.parametrize(
    ("part", "height", "width", "rows"),
    [("unet", 32, 32, 1), ("unet", 24, 48, 2), ("vae", 16, 16, 1), ("vae", 24, 16, 1)],
)
def test_the_count_is_what_lives_at_once(part, height, width, rows) -> None:
    """Bytes of tensors, counted; what kernels and the C library add is ``OVERHEAD``."""
    with torch.device("meta"):
        unet, autoencoder = UNet(UNET), Autoencoder(VAE)
    model = dataclasses.replace(small.model(), unet=unet, autoencoder=autoencoder)
    counted = memory.estimate(
        model, (height * autoencoder.factor, width * autoencoder.factor), rows
    )
    assert counted is not None
    latents = torch.randn(rows, 4, height, width)
    with torch.no_grad():
        if part == "unet":
            network, text = UNet(UNET), torch.randn(rows, 77, 768)
            with LiveBytes() as live:
                network(latents, torch.ones(rows), text)
            assert live.peak == pytest.approx(counted.network, rel=0.05)
        else:
            network = Autoencoder(VAE)
            with LiveBytes() as live:
                network.decode(latents)
            assert live.peak == pytest.approx(counted.decoding, rel=0.05)
