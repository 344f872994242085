"""The same random weights in diffusers or transformers and in ours: the same outputs to 1e-4."""

import sys

import pytest
import torch
from torch import Tensor

import oracles
from cases import quick
from darkroom.models.autoencoder import SD_AUTOENCODER, Autoencoder, AutoencoderConfig
from darkroom.models.clip_text import ClipTextModel, TextConfig
from darkroom.models.unet import SD15, UNet, UNetConfig
from darkroom.weights.layouts import autoencoder, clip_text, unet

UNETS = {  # the shapes of each family at reduced width
    "sd1": UNetConfig(channels=(32, 64, 64, 96), text_channels=48),
    "sd1-inpaint": UNetConfig(in_channels=9, channels=(32, 64, 64, 96), text_channels=48),
    "sd2": UNetConfig(channels=(32, 64, 96, 96), heads=(2, 4, 6, 6), text_channels=64),
    "sd2-depth": UNetConfig(
        in_channels=5, channels=(32, 64, 96, 96), heads=(2, 4, 6, 6), text_channels=64
    ),
    "sdxl": UNetConfig(
        channels=(32, 64, 96),
        heads=(2, 4, 6),
        depth=(0, 2, 4),
        middle_depth=4,
        text_channels=64,
        vector_channels=40 + 6 * 256,
    ),
    "sdxl-refiner": UNetConfig(
        channels=(32, 64, 96, 96),
        heads=(2, 4, 6, 6),
        depth=(0, 2, 2, 0),
        middle_depth=2,
        text_channels=48,
        vector_channels=40 + 5 * 256,
    ),
}


def unet_inputs(config: UNetConfig, size: int, batch: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = {
        "x": torch.randn(batch, config.in_channels, size, size, generator=generator),
        "t": torch.tensor([999.0, 17.25][:batch]),
        "text": torch.randn(batch, 77, config.text_channels, generator=generator),
    }
    if config.vector_channels:  # pooled text, then six (or five) numbers as 256 sinusoids each
        numbers = (config.vector_channels - 40) // 256
        inputs["pooled"] = torch.randn(batch, 40, generator=generator)
        inputs["ids"] = torch.randint(0, 1024, (batch, numbers), generator=generator).float()
    return inputs


def run_theirs(model, inputs: dict[str, Tensor]) -> Tensor:
    added = None
    if "ids" in inputs:
        added = {"text_embeds": inputs["pooled"], "time_ids": inputs["ids"]}
    return model(inputs["x"], inputs["t"], inputs["text"], added_cond_kwargs=added).sample


def run_ours(model: UNet, inputs: dict[str, Tensor], dtype=torch.float32) -> Tensor:
    from darkroom.nn.embedding import sinusoid

    vector = None
    if "ids" in inputs:
        features = sinusoid(inputs["ids"].flatten(), 256).reshape(len(inputs["ids"]), -1)
        vector = torch.cat((inputs["pooled"], features), dim=-1).to(dtype)
    return model(inputs["x"].to(dtype), inputs["t"], inputs["text"].to(dtype), vector)


def layouts_of(name: str):
    return (unet.DIFFUSERS_SD1, unet.LDM_SD1) if "sd1" in name else (unet.DIFFUSERS, unet.LDM)


@pytest.mark.parametrize("name", UNETS)
@torch.no_grad()
def test_unet(name: str) -> None:
    config, (diffusers, _) = UNETS[name], layouts_of(name)
    theirs = oracles.randomize(oracles.unet(config, linear="sd1" not in name))
    ours = UNet(config).eval()
    ours.load_state_dict(diffusers.convert(theirs.state_dict(), config))
    inputs = unet_inputs(config, 16)
    expected = run_theirs(theirs, inputs)
    assert expected.std() > 0.1  # a network that outputs zeros would agree with anything
    assert oracles.largest(run_ours(ours, inputs), expected) < 1e-4
    back = diffusers.revert(ours.state_dict(), config)
    assert back.keys() == theirs.state_dict().keys()
    assert all(torch.equal(back[k], tensor) for k, tensor in theirs.state_dict().items())


@pytest.mark.parametrize("name", UNETS)
def test_unet_in_ldm_names_reaches_diffusers_tensor_for_tensor(name: str) -> None:
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    config, (diffusers, ldm) = UNETS[name], layouts_of(name)
    ours = oracles.randomize(UNet(config)).state_dict()
    file = {f"model.diffusion_model.{k}": t for k, t in ldm.revert(ours, config).items()}
    reference = oracles.unet(config, linear="sd1" not in name, device="meta")
    theirs = convert_ldm_unet_checkpoint(file, dict(reference.config))
    expected = diffusers.revert(ours, config)
    assert theirs.keys() == expected.keys()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in expected.items())
    again = ldm.convert(ldm.revert(ours, config), config)
    assert all(torch.equal(again[name], tensor) for name, tensor in ours.items())


@torch.no_grad()
def test_unet_adds_residuals_as_diffusers_does() -> None:
    config = UNETS["sd1"]
    theirs = oracles.randomize(oracles.unet(config, linear=False))
    ours = UNet(config).eval()
    ours.load_state_dict(unet.DIFFUSERS_SD1.convert(theirs.state_dict(), config))
    inputs = unet_inputs(config, 16)
    shapes = []
    ours.input.register_forward_hook(lambda m, i, out: shapes.append(out.shape))
    for stage in ours.down:
        stage.register_forward_hook(lambda m, i, out: shapes.append(out.shape))
    run_ours(ours, inputs)
    generator = torch.Generator().manual_seed(2)
    extras = [torch.randn(shape, generator=generator) for shape in [*shapes, shapes[-1]]]
    actual = ours(inputs["x"], inputs["t"], inputs["text"], residuals=extras)
    expected = theirs(
        inputs["x"],
        inputs["t"],
        inputs["text"],
        down_block_additional_residuals=tuple(extras[:-1]),
        mid_block_additional_residual=extras[-1],
    ).sample
    assert oracles.largest(actual, expected) < 1e-4


SMALL_AUTOENCODER = AutoencoderConfig(channels=(32, 64, 64, 96))


def check_autoencoder(config: AutoencoderConfig, size: int) -> tuple[float, float]:
    theirs = oracles.randomize(oracles.autoencoder(config))
    ours = Autoencoder(config).eval()
    ours.load_state_dict(autoencoder.DIFFUSERS.convert(theirs.state_dict(), config))
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 3, size, size, generator=generator) * 2 - 1
    posterior = theirs.encode(image).latent_dist
    mean, log_variance = ours.moments(image)
    noise = torch.randn(mean.shape, generator=generator)
    encoding = max(
        oracles.largest(mean, posterior.mean),
        oracles.largest(log_variance, posterior.logvar),
        oracles.largest(ours.encode(image), posterior.mean * config.scale),
        oracles.largest(
            ours.encode(image, noise), (posterior.mean + posterior.std * noise) * config.scale
        ),
    )
    latents = torch.randn(mean.shape, generator=generator)
    expected = theirs.decode(latents / config.scale).sample
    assert expected.std() > 0.1
    return encoding, oracles.largest(ours.decode(latents), expected)


@torch.no_grad()
def test_autoencoder() -> None:
    encoding, decoding = check_autoencoder(SMALL_AUTOENCODER, 64)
    assert encoding < 1e-4
    assert decoding < 1e-4


def test_autoencoder_in_ldm_names_reaches_diffusers_tensor_for_tensor() -> None:
    from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

    config = SMALL_AUTOENCODER
    ours = oracles.randomize(Autoencoder(config)).state_dict()
    file = {f"first_stage_model.{k}": t for k, t in autoencoder.LDM.revert(ours, config).items()}
    reference = oracles.autoencoder(config, device="meta")
    theirs = convert_ldm_vae_checkpoint(file, dict(reference.config))
    expected = autoencoder.DIFFUSERS.revert(ours, config)
    assert theirs.keys() == expected.keys()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in expected.items())


TOWERS = {
    "l": TextConfig(vocabulary=600, channels=64, layers=3, heads=4, hidden=96, end=599),
    "bigg": TextConfig(
        vocabulary=600, channels=64, layers=4, heads=4, hidden=128, quick_gelu=False,
        projection=48, end=599,
    ),
}  # fmt: skip


def check_text(config: TextConfig) -> float:
    theirs = oracles.randomize(oracles.text(config))
    ours = ClipTextModel(config).eval()
    ours.load_state_dict(clip_text.HUGGINGFACE.convert(theirs.state_dict(), config))
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, config.end - 1, (2, config.positions), generator=generator)
    ids[0, 9:] = config.end  # CLIP-L pads with the end token, the pooled one is the first
    ids[1, 60] = config.end
    expected = theirs(ids, output_hidden_states=True)
    actual = ours(ids)
    assert len(actual.hidden) == config.layers + 1
    pairs = list(zip(actual.hidden, expected.hidden_states, strict=True))
    pairs.append((actual.last, expected.last_hidden_state))
    if config.projection:
        assert actual.projected is not None
        pairs.append((actual.projected, expected.text_embeds))
    else:
        pairs.append((actual.pooled, expected.pooler_output))
    assert expected.last_hidden_state.std() > 0.1
    return max(oracles.largest(a, b) for a, b in pairs)


@pytest.mark.parametrize("name", TOWERS)
@torch.no_grad()
def test_text_tower(name: str) -> None:
    assert check_text(TOWERS[name]) < 1e-4


@pytest.mark.parametrize("name", TOWERS)
def test_text_tower_in_openclip_names_reaches_transformers_tensor_for_tensor(name: str) -> None:
    from diffusers.loaders.single_file_utils import convert_open_clip_checkpoint

    config = TOWERS[name]
    ours = oracles.randomize(ClipTextModel(config)).state_dict()
    file = clip_text.OPENCLIP.revert(ours, config)
    reference = oracles.text(config, device="meta")
    theirs = convert_open_clip_checkpoint(reference, {f"p.{k}": t for k, t in file.items()}, "p.")
    expected = clip_text.HUGGINGFACE.revert(ours, config)
    assert theirs.keys() == expected.keys()
    assert all(torch.equal(theirs[name], tensor) for name, tensor in expected.items())
    again = clip_text.OPENCLIP.convert(file, config)
    assert all(torch.equal(again[name], tensor) for name, tensor in ours.items())


@torch.no_grad()
def test_given_token_embeddings_replace_those_of_the_ids() -> None:
    model = oracles.randomize(ClipTextModel(TOWERS["l"])).eval()
    ids = torch.tensor([[598, 5, 6, 7, 599, 599]])
    assert isinstance(model, ClipTextModel)
    embeds = model.token(ids)
    assert torch.equal(model(ids, embeds).last, model(ids).last)
    embeds[:, 2] = 0.3
    changed = model(ids, embeds).last
    assert torch.equal(changed[:, :2], model(ids).last[:, :2])  # causal: the past is as it was
    assert not torch.equal(changed[:, 2:], model(ids).last[:, 2:])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", quick([torch.bfloat16], [torch.float16, torch.bfloat16]))
@torch.no_grad()
def test_half_precision_is_finite_kept_and_close(dtype: torch.dtype) -> None:
    tolerance = {torch.float16: 0.01, torch.bfloat16: 0.08}[dtype]

    def check(actual: Tensor, expected: Tensor) -> None:
        assert actual.dtype == dtype
        assert actual.isfinite().all()
        error = (actual.float() - expected).norm() / expected.norm()
        assert error < tolerance

    config = UNETS["sdxl"]
    model = oracles.randomize(UNet(config)).eval()
    inputs = unet_inputs(config, 16)
    expected = run_ours(model, inputs)
    check(run_ours(model.to(dtype), inputs, dtype), expected)

    coder = oracles.randomize(Autoencoder(SMALL_AUTOENCODER)).eval()
    assert isinstance(coder, Autoencoder)
    image, latents = torch.rand(1, 3, 32, 32) * 2 - 1, torch.randn(1, 4, 8, 8)
    encoded, decoded = coder.encode(image), coder.decode(latents)
    coder = coder.to(dtype)
    check(coder.encode(image.to(dtype)), encoded)
    check(coder.decode(latents.to(dtype)), decoded)

    tower = oracles.randomize(ClipTextModel(TOWERS["bigg"])).eval()
    ids = torch.randint(0, 599, (2, 77), generator=torch.Generator().manual_seed(3))
    ids[:, 40:] = 599
    last, projected = tower(ids).last, tower(ids).projected
    tower = tower.to(dtype)
    check(tower(ids).last, last)
    check(tower(ids).projected, projected)


@pytest.mark.slow
@torch.no_grad()
def test_full_size_sd15_unet() -> None:
    theirs = oracles.randomize(oracles.unet(SD15, linear=False))
    with torch.device("meta"):
        ours = UNet(SD15).eval()
    ours.load_state_dict(unet.DIFFUSERS_SD1.convert(theirs.state_dict(), SD15), assign=True)
    inputs = unet_inputs(SD15, 32, batch=1)
    expected = run_theirs(theirs, inputs)
    difference = oracles.largest(run_ours(ours, inputs), expected)
    sys.stdout.write(f"largest difference {difference:.2e}\n")
    assert difference < 1e-4


@pytest.mark.slow
@torch.no_grad()
def test_full_size_autoencoder() -> None:
    encoding, decoding = check_autoencoder(SD_AUTOENCODER, 256)
    sys.stdout.write(f"largest difference {encoding:.2e} encoding, {decoding:.2e} decoding\n")
    assert encoding < 1e-4
    assert decoding < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip-l", "openclip-h", "openclip-bigg"])
@torch.no_grad()
def test_full_size_text_tower(name: str) -> None:
    difference = check_text(clip_text.PRESETS[name])
    sys.stdout.write(f"largest difference {difference:.2e}\n")
    assert difference < 1e-4
