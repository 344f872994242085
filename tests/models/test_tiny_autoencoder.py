"""The tiny autoencoder against diffusers' AutoencoderTiny, at full size: it is small."""

import json
from dataclasses import replace

import pytest
import torch

import oracles
from darkroom.errors import CheckpointError, LayoutError
from darkroom.models.tiny_autoencoder import TAESD, TAESD3, TinyAutoencoder
from darkroom.weights.layout import identify
from darkroom.weights.layouts.tiny_autoencoder import (
    DIFFUSERS,
    LAYOUTS,
    ORIGINAL,
    tiny_autoencoder_config,
    tiny_autoencoder_json,
)


def theirs(config):
    from diffusers import AutoencoderTiny

    arguments = tiny_autoencoder_json(config)
    return AutoencoderTiny(**{k: v for k, v in arguments.items() if k != "_class_name"}).eval()


@pytest.mark.parametrize("config", [TAESD, TAESD3, replace(TAESD, channels=8)])
@torch.no_grad()
def test_equal_to_diffusers(config) -> None:
    reference = oracles.randomize(theirs(config))
    ours = TinyAutoencoder(config).eval()
    ours.load_state_dict(DIFFUSERS.convert(reference.state_dict(), config))
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 3, 32, 32, generator=generator) * 2 - 1
    latents = torch.randn(1, config.latent_channels, 4, 4, generator=generator) * 2
    encoded, decoded = reference.encode(image).latents, reference.decode(latents).sample
    assert decoded.std() > 0.1
    assert oracles.largest(ours.encode(image), encoded) < 1e-4
    assert oracles.largest(ours.decode(latents), decoded) < 1e-4
    assert ours.factor == 8
    assert ours.channels == config.latent_channels
    back = DIFFUSERS.revert(ours.state_dict(), config)
    assert back.keys() == reference.state_dict().keys()
    assert all(torch.equal(back[k], tensor) for k, tensor in reference.state_dict().items())


def test_original_names() -> None:
    state = TinyAutoencoder(TAESD).state_dict()
    files = ORIGINAL.revert(state, TAESD)
    decoder = {k.removeprefix("decoder."): t for k, t in files.items() if k.startswith("decoder.")}
    # clamp, convolution, ReLU, three blocks, upsampling, convolution without bias, ...
    assert decoder["1.weight"].shape == (64, 4, 3, 3)
    assert decoder["3.conv.4.bias"].shape == (64,)
    assert "7.weight" in decoder
    assert "7.bias" not in decoder
    assert decoder["19.weight"].shape == (3, 64, 3, 3)
    assert files["encoder.14.weight"].shape == (4, 64, 3, 3)
    assert identify(files, LAYOUTS) == (ORIGINAL, "taesd")
    assert identify(DIFFUSERS.revert(state, TAESD), LAYOUTS) == (DIFFUSERS, "taesd")
    again = ORIGINAL.convert(files, TAESD)
    assert all(torch.equal(again[name], tensor) for name, tensor in state.items())
    with pytest.raises(LayoutError, match=r"decoder\.20\.weight"):
        ORIGINAL.convert({**files, "decoder.20.weight": torch.empty(1)}, TAESD)


def test_configs() -> None:
    for config in (TAESD, TAESD3, replace(TAESD, channels=8)):
        assert tiny_autoencoder_config(json.loads(json.dumps(tiny_autoencoder_json(config)))) == (
            config
        )
    assert tiny_autoencoder_config({}) == TAESD
    with pytest.raises(CheckpointError, match="act_fn = 'gelu'"):
        tiny_autoencoder_config({"act_fn": "gelu"})
    with pytest.raises(CheckpointError, match="latent_chanels"):
        tiny_autoencoder_config({"latent_chanels": 4})
    with pytest.raises(CheckpointError, match="one width"):
        tiny_autoencoder_config({"decoder_block_out_channels": [64, 64, 64, 32]})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@torch.no_grad()
def test_half_precision(dtype: torch.dtype) -> None:
    model = TinyAutoencoder(TAESD).eval()
    latents = torch.randn(1, 4, 4, 4)
    expected = model.decode(latents)
    actual = model.to(dtype).decode(latents.to(dtype))
    assert actual.dtype == dtype
    assert actual.isfinite().all()
    assert (actual.float() - expected).norm() < 0.05 * expected.norm()
