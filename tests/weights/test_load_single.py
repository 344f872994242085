"""Folders that hold one network, at the root or as the only part of a pipeline."""

import json
import shutil

import diffusers
import pytest
import torch
import transformers

from darkroom.diffusion.pixel_diffusion import PixelDiffusion
from darkroom.errors import CheckpointError
from darkroom.models.autoencoder import Autoencoder
from darkroom.models.clip_text import ClipTextModel
from darkroom.models.tiny_autoencoder import TinyAutoencoder
from darkroom.models.unet import UNet
from darkroom.weights.load import load
from darkroom.weights.save import save
from weights import tiny
from weights.tiny import TOLERANCE, inputs


@pytest.fixture(scope="module")
def pixels():
    return tiny.pixels()


def the_same(model, pipeline):
    x = torch.randn((2, 3, 32, 32), generator=torch.Generator().manual_seed(1))
    t = torch.tensor([3.0, 700.0])
    with torch.no_grad():
        torch.testing.assert_close(model.unet(x, t), pipeline.unet(x, t).sample, **TOLERANCE)
    assert model.sampling.sampler == "ddpm"
    assert model.settings["size"] == (32, 32)


@pytest.mark.parametrize("index", [True, False])
def test_pixel_model_at_the_root(tmp_path, pixels, index):
    """google/ddpm-cat-256: all at the root, with a model_index.json or without."""
    pixels.unet.save_pretrained(tmp_path / "cat", safe_serialization=False)
    pixels.scheduler.save_pretrained(tmp_path / "cat")
    if index:
        pixels.save_pretrained(tmp_path / "pipeline")
        shutil.copy(tmp_path / "pipeline" / "model_index.json", tmp_path / "cat")
    model = load(tmp_path / "cat")
    assert isinstance(model, PixelDiffusion)
    the_same(model, pixels)


def test_pixel_pipeline(tmp_path, pixels):
    pixels.save_pretrained(tmp_path / "pipeline")
    the_same(load(tmp_path / "pipeline"), pixels)


def test_pixel_model_denoises(tmp_path, pixels):
    pixels.save_pretrained(tmp_path / "pipeline")
    model = load(tmp_path / "pipeline")
    scheduler = pixels.scheduler
    t = 500
    alpha_bar = scheduler.alphas_cumprod[t].item()
    sigma = ((1 - alpha_bar) / alpha_bar) ** 0.5
    noisy = torch.randn((1, 3, 32, 32), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        noise = pixels.unet(noisy, t).sample
        clean = (noisy - (1 - alpha_bar) ** 0.5 * noise) / alpha_bar**0.5
        found = model.denoise(noisy / alpha_bar**0.5, sigma)
    torch.testing.assert_close(found, clean, rtol=1e-3, atol=1e-3)


def test_unet_alone(tmp_path):
    theirs = tiny.sd1().unet
    theirs.save_pretrained(tmp_path / "net")
    ours = load(tmp_path / "net")
    assert isinstance(ours, UNet)
    _, latents, t = inputs(4)
    text = torch.randn((1, 7, 32), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(
            ours(latents, t, text), theirs(latents, t, text).sample, **TOLERANCE
        )


def test_autoencoder_alone(tmp_path):
    theirs = tiny.sd1().vae
    theirs.save_pretrained(tmp_path / "vae")
    ours = load(tmp_path / "vae")
    assert isinstance(ours, Autoencoder)
    image, _, _ = inputs(4)
    with torch.no_grad():
        mean, _ = ours.moments(image)
        torch.testing.assert_close(mean, theirs.encode(image).latent_dist.mean, **TOLERANCE)


def test_tiny_autoencoder_alone(tmp_path):
    theirs = diffusers.AutoencoderTiny(latent_channels=4).eval()
    theirs.save_pretrained(tmp_path / "taesd")
    ours = load(tmp_path / "taesd")
    assert isinstance(ours, TinyAutoencoder)
    again = diffusers.AutoencoderTiny.from_pretrained(save(ours, tmp_path / "again"))
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_text_tower_alone(tmp_path):
    theirs = transformers.CLIPTextModel(tiny.text_config()).eval()
    theirs.save_pretrained(tmp_path / "text")
    ours = load(tmp_path / "text")
    assert isinstance(ours, ClipTextModel)
    ids = torch.tensor([[520, 7, 9, 521, 521]])
    with torch.no_grad():
        torch.testing.assert_close(ours(ids).last, theirs(ids)[0], **TOLERANCE)


def test_pixel_network_is_saved_as_diffusers_has_it(tmp_path, pixels):
    pixels.save_pretrained(tmp_path / "pipeline")
    save(load(tmp_path / "pipeline").unet, tmp_path / "again")
    again = diffusers.UNet2DModel.from_pretrained(tmp_path / "again")
    for name, tensor in pixels.unet.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_a_class_that_is_not_known(tmp_path):
    theirs = tiny.sd1().unet
    theirs.save_pretrained(tmp_path / "net")
    path = tmp_path / "net" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_class_name": "NoOnesModel"}))
    with pytest.raises(CheckpointError, match="a NoOnesModel is not supported; expected one"):
        load(tmp_path / "net")
