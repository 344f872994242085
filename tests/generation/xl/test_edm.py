"""EDM's models of the XL kind, Playground v2.5 and CosXL: whole pictures equal to diffusers'."""

import json
from dataclasses import replace

import diffusers
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cases import quick
from darkroom.errors import CheckpointError
from darkroom.generation.generate import develop, generate
from darkroom.generation.guidance import Guidance
from darkroom.generation.image import ImageToImage
from darkroom.generation.preview import preview
from darkroom.models.autoencoder import Autoencoder
from darkroom.names import SAMPLER_NAMES
from darkroom.weights.convert.converting import convert
from darkroom.weights.inspect import inspect
from darkroom.weights.load import load
from darkroom.weights.save import save
from generation.xl.pairs import NEGATIVE, PROMPT, SCALE, check, draws, noise, photo
from weights import tiny

MEAN, DEVIATION = [-0.625, 0.25, 0.5, -0.25], [1.5, 0.875, 1.75, 1.125]
PLAYGROUND = diffusers.EDMDPMSolverMultistepScheduler  # all as its defaults
COSXL = {
    "sigma_min": 0.002,
    "sigma_max": 120.0,
    "sigma_data": 1.0,
    "prediction_type": "v_prediction",
    "sigma_schedule": "exponential",
}


def pipeline(kind):
    found = tiny.sdxl()
    if kind == "playground":
        found.scheduler = PLAYGROUND()
        vae = {"scaling_factor": 0.5, "latents_mean": MEAN, "latents_std": DEVIATION}
        found.vae.register_to_config(**vae)
    else:
        found.scheduler = diffusers.EDMEulerScheduler(**COSXL)
    found.set_progress_bar_config(disable=True)
    return found


@pytest.fixture(scope="module", params=quick(["cosxl"], ["playground", "cosxl"]))
def pair(request, tmp_path_factory):
    """diffusers' pipeline, its folder, and a single file with nothing but the public marks."""
    kind, folder = request.param, tmp_path_factory.mktemp(request.param)
    theirs = pipeline(kind)
    tiny.save(theirs, folder / "folder")
    file = folder / "file.safetensors"
    save(load(folder / "folder"), file)
    with safe_open(file, "pt") as opened:
        own = json.loads(opened.metadata()["darkroom"])
    del own["scheduler"], own["settings"]
    vae = own["configs"]["autoencoder"]  # the metadata tell the sizes of a tiny model, no more
    own["configs"]["autoencoder"] = {**vae, "scale": 0.13025, "mean": [], "deviation": []}
    stock = folder / "stock.safetensors"
    save_file(load_file(file), stock, {"darkroom": json.dumps(own)})
    return kind, theirs, folder


def drawn(model, **options):
    return develop(
        model, PROMPT, Guidance(SCALE, negative=NEGATIVE), size=(64, 64), noise=noise(),
        **{"steps": 6, **options},
    )  # fmt: skip


def test_text_to_image(pair, tmp_path):
    """The folder, the stock file, and what is saved and converted of them."""
    kind, theirs, folder = pair
    expected = theirs(
        PROMPT, negative_prompt=NEGATIVE, num_inference_steps=6, guidance_scale=SCALE,
        latents=noise(), height=64, width=64, output_type="pil",
    ).images  # fmt: skip
    model = load(folder / "folder", dtype="float32", device="cpu")
    check(drawn(model), expected)
    if kind == "playground":
        assert model.settings["guidance"] == 3.0
    stock = load(folder / "stock.safetensors", dtype="float32", device="cpu")
    assert stock.schedule == model.schedule
    assert stock.autoencoder.config == model.autoencoder.config
    check(drawn(stock), expected)
    first, *_ = convert(folder / "stock.safetensors", tmp_path / "again")
    assert not [note for note in first.notes if "edm" in note]
    check(drawn(load(tmp_path / "again")), expected)
    opened = type(theirs).from_pretrained(tmp_path / "again")
    assert type(opened.scheduler) is type(theirs.scheduler)
    for key, value in theirs.scheduler.config.items():
        assert key.startswith("_") or opened.scheduler.config[key] == value
    marks = {"playground": {"edm_mean", "edm_std"}}.get(
        kind, {"edm_vpred.sigma_max", "edm_vpred.sigma_min"}
    )
    list(convert(tmp_path / "again", tmp_path / "b.safetensors"))
    assert {name for name in load_file(tmp_path / "b.safetensors") if "edm" in name} == marks
    for place in (folder / "folder", folder / "stock.safetensors", tmp_path / "b.safetensors"):
        report = inspect(place)
        assert "EDM" in report.details
        assert report.prediction == ("noise" if kind == "playground" else "velocity")
        assert not report.unknown


def test_image_to_image(pair):
    _, theirs, folder = pair
    other = diffusers.StableDiffusionXLImg2ImgPipeline(**theirs.components)
    other.set_progress_bar_config(disable=True)
    expected = other(
        PROMPT, image=photo(), negative_prompt=NEGATIVE, num_inference_steps=6, strength=0.6,
        guidance_scale=SCALE, generator=torch.Generator().manual_seed(4),
    ).images  # fmt: skip
    posterior, first = draws(4)
    ours = develop(
        load(folder / "folder"), PROMPT, Guidance(SCALE, negative=NEGATIVE),
        ImageToImage(photo(), 0.6, noise=posterior), steps=6, size=(64, 64), noise=first,
    )  # fmt: skip
    check(ours, expected)


@pytest.mark.slow
def test_any_sampler(pair):
    """Each of ours draws from the file; those of distillations say what is wrong."""
    kind, _, folder = pair
    model = load(folder / "stock.safetensors")
    for sampler in SAMPLER_NAMES if kind == "cosxl" else SAMPLER_NAMES[::5]:
        if sampler in ("lcm", "tcd"):
            with pytest.raises(ValueError, match="levels are sigmas"):
                model.sampling.levels(4, sampler)
            continue
        levels = model.sampling.levels(4, sampler)
        assert levels.sigmas[0] == pytest.approx(model.schedule.sigmas[-1])
        steps = list(generate(model, PROMPT, steps=2, size=(32, 32), sampler=sampler))
        assert torch.isfinite(steps[-1].x).all()


def test_preview(pair):
    """A decoder of XL's latents sees them as XL has them; colours are fitted to the model's."""
    kind, _, folder = pair
    model = load(folder / "folder")
    seen = []

    class Decoder:
        def decode(self, latents):
            seen.append(latents)
            return torch.zeros(1, 3, 64, 64)

    latents = noise()
    preview(model, latents, Decoder())
    assert torch.equal(seen[0], latents) == (kind == "cosxl")
    usual = replace(model.autoencoder.config, mean=(), deviation=(), scale=0.13025)
    plain = Autoencoder(usual).eval()
    plain.load_state_dict(model.autoencoder.state_dict())
    torch.testing.assert_close(
        plain.decode(seen[0]), model.autoencoder.decode(latents), atol=1e-5, rtol=1e-4
    )
    assert len(preview(model, latents)) == 1


def test_levels_that_are_none(pair, tmp_path):
    kind, _, folder = pair
    state = load_file(folder / "stock.safetensors")
    with safe_open(folder / "stock.safetensors", "pt") as opened:
        metadata = opened.metadata()
    changes = [({"edm_mean": torch.zeros(3)}, "expected 4")]
    if kind == "cosxl":
        changes = [
            ({"edm_vpred.sigma_max": torch.zeros(2)}, "has 2 numbers, expected one"),
            ({"edm_vpred.sigma_max": torch.tensor(0.001)}, "two rising numbers above 0"),
        ]
    for change, message in changes:
        save_file({**state, **change}, tmp_path / "a.safetensors", metadata)
        with pytest.raises(CheckpointError, match=message):
            load(tmp_path / "a.safetensors")
