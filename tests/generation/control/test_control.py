"""Control: equal to diffusers' pipelines, its numbers checked, its pictures drawn again."""

import itertools
from dataclasses import replace
from typing import Any

import diffusers as library
import numpy as np
import pytest
import torch
from PIL import Image

import darkroom as dr
import oracles
from cases import quick
from darkroom.errors import ConfigError, ModelMismatchError
from darkroom.generation.control import Control
from darkroom.generation.generate import develop, generate
from darkroom.generation.guidance import Guidance
from darkroom.generation.image import ImageToImage
from darkroom.generation.inpaint import Inpaint
from darkroom.generation.metadata import Params, UsedAnnotator
from darkroom.generation.redraw import redraw
from darkroom.models.control.controlnet import ControlNet
from darkroom.models.control.t2i_adapter import T2IAdapter, T2IAdapterConfig
from darkroom.weights.load import load
from generation import small
from generation.test_generation_equals_diffusers import Pair, check, photo

diffusers: Any = library
PROMPT, NEGATIVE, SCALE, STEPS = "the cat on a red house", "blurry rain", 7.5, 6
DREW = UsedAnnotator(kind="canny", options={"low": 10.0, "high": 200})


def noise(seed: int = 5) -> torch.Tensor:
    return torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


def hint(seed: int = 1, size: tuple[int, int] = (64, 64)) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))


def control(pair: Pair, seed: int, folder: Any, **fields: Any) -> tuple[Any, ControlNet]:
    """A random network of diffusers for this base, and the same one read by us."""
    theirs: Any = diffusers.ControlNetModel.from_unet(
        pair.pipeline.unet, conditioning_embedding_out_channels=(4, 8, 8, 12)
    )
    theirs.eval().register_to_config(**fields)
    oracles.randomize(theirs, seed)
    theirs.save_pretrained(folder / f"net{seed}")
    return theirs, load(folder / f"net{seed}", dtype="float32", device="cpu")


class Bench:
    """A base and two networks for it."""

    def __init__(self, family: str, folder: Any) -> None:
        self.pair = Pair(family, folder / "base")
        self.nets = [control(self.pair, seed, folder) for seed in (1, 2)]
        self.pooled = control(self.pair, 3, folder, global_pool_conditions=True)

    def pipeline(self, kind: str, nets: Any, **parts: Any) -> Any:
        components = {k: v for k, v in self.pair.pipeline.components.items() if k not in parts}
        found = getattr(diffusers, kind)(**components, controlnet=nets, **parts)
        found.set_progress_bar_config(disable=True)
        return found


@pytest.fixture(scope="module")
def sd1(tmp_path_factory: Any) -> Bench:
    return Bench("sd1", tmp_path_factory.mktemp("sd1"))


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: Any) -> Bench:
    return Bench("sdxl", tmp_path_factory.mktemp("sdxl"))


COMMON: dict[str, Any] = {
    "negative_prompt": NEGATIVE, "num_inference_steps": STEPS, "guidance_scale": SCALE,
}  # fmt: skip


def drawn(bench: Bench, *features: Any, **arguments: Any) -> list[Any]:
    arguments = {"steps": STEPS, "noise": noise(), **arguments}
    return develop(bench.pair.model, PROMPT, Guidance(SCALE, NEGATIVE), *features, **arguments)


SETTINGS = [
    {},
    {"weight": 0.5, "start": 0.2, "end": 0.7},
    {"weight": 0.8, "guess": True},
]
CASES = [*itertools.product([None, "heun", "ddim"], SETTINGS)]


@pytest.mark.parametrize(("sampler", "settings"), quick(CASES[::4], CASES))  # each value once
def test_text_to_image(sd1: Bench, sampler: str | None, settings: dict[str, Any]) -> None:
    sd1.pair.schedule(sampler)
    theirs, net = sd1.nets[0]
    expected = sd1.pipeline("StableDiffusionControlNetPipeline", theirs)(
        PROMPT, image=hint(), latents=noise(), **COMMON,
        controlnet_conditioning_scale=settings.get("weight", 1.0),
        control_guidance_start=settings.get("start", 0.0),
        control_guidance_end=settings.get("end", 1.0),
        guess_mode=settings.get("guess", False),
    ).images  # fmt: skip
    ours = drawn(sd1, Control(net, hint(), **settings), sampler=sampler)
    check(ours, expected)
    if sampler == "ddim":  # the hint matters, so equality says something
        assert ours[0].image.tobytes() != drawn(sd1, sampler=sampler)[0].image.tobytes()


def test_two_networks(sd1: Bench) -> None:
    sd1.pair.schedule("ddim")
    theirs = [net for net, _ in sd1.nets]
    expected = sd1.pipeline("StableDiffusionControlNetPipeline", theirs)(
        PROMPT, image=[hint(1), hint(2)], latents=noise(), **COMMON,
        controlnet_conditioning_scale=[0.7, 0.4], control_guidance_start=[0.0, 0.3],
        control_guidance_end=[0.8, 1.0],
    ).images  # fmt: skip
    first = Control(sd1.nets[0][1], hint(1), 0.7, end=0.8)
    second = Control(sd1.nets[1][1], hint(2), 0.4, start=0.3)
    check(drawn(sd1, first, second, sampler="ddim"), expected)


def test_a_pooled_network(sd1: Bench) -> None:
    """Its residuals are means, and it acts on the prompt's side alone."""
    sd1.pair.schedule("ddim")
    theirs, net = sd1.pooled
    assert net.config.pooled
    expected = sd1.pipeline("StableDiffusionControlNetPipeline", theirs)(
        PROMPT, image=hint(), latents=noise(), **COMMON
    ).images
    check(drawn(sd1, Control(net, hint()), sampler="ddim"), expected)


@pytest.mark.parametrize("sampler", ["pndm", "ddim"])
def test_image_to_image(sd1: Bench, sampler: str) -> None:
    sd1.pair.schedule(sampler)
    theirs, net = sd1.nets[0]
    generator = torch.Generator().manual_seed(9)
    posterior, first = (torch.randn(1, 4, 8, 8, generator=generator) for _ in range(2))
    expected = sd1.pipeline("StableDiffusionControlNetImg2ImgPipeline", theirs)(
        PROMPT, image=photo(), control_image=hint(), strength=0.6, **COMMON,
        control_guidance_start=0.3, controlnet_conditioning_scale=0.9,
        generator=torch.Generator().manual_seed(9),
    ).images  # fmt: skip
    start = ImageToImage(photo(), 0.6, noise=posterior)
    ours = drawn(sd1, start, Control(net, hint(), 0.9, 0.3), sampler=sampler, noise=first)
    check(ours, expected)


def test_xl(sdxl: Bench) -> None:
    sdxl.pair.schedule()
    for nets, guess in ((sdxl.nets[:1], False), (sdxl.nets, False), (sdxl.nets[:1], True)):
        theirs = [net for net, _ in nets]
        many = len(theirs) > 1
        expected = sdxl.pipeline(
            "StableDiffusionXLControlNetPipeline", theirs if many else theirs[0]
        )(
            PROMPT, image=[hint(1), hint(2)] if many else hint(1), latents=noise(), **COMMON,
            controlnet_conditioning_scale=[0.6, 0.6] if many else 0.6, guess_mode=guess,
            height=64, width=64,
        ).images  # fmt: skip
        controls = [Control(net, hint(i + 1), 0.6, guess=guess) for i, (_, net) in enumerate(nets)]
        check(drawn(sdxl, *controls, size=(64, 64)), expected)


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_adapters(request: Any, family: str) -> None:
    bench: Bench = request.getfixturevalue(family)
    bench.pair.schedule("ddim")
    xl = family == "sdxl"
    channels: Any = bench.pair.model.unet.config.channels  # pyright: ignore
    config = T2IAdapterConfig(channels=(*channels, channels[-1]) if xl else channels)
    config = replace(config, factor=16, halved=(2,)) if xl else config
    kind = "full_adapter_xl" if xl else "full_adapter"
    theirs = diffusers.T2IAdapter(3, list(config.channels), 2, config.factor, kind).eval()
    oracles.randomize(theirs)
    net = T2IAdapter(config).eval()
    from darkroom.weights.layouts.control.t2i_adapter import DIFFUSERS

    net.load_state_dict(DIFFUSERS.convert(theirs.state_dict(), config))
    name = f"StableDiffusion{'XL' if xl else ''}AdapterPipeline"
    parts = {k: v for k, v in bench.pair.pipeline.components.items() if v is not None}
    if not xl:
        parts |= {"safety_checker": None, "feature_extractor": None}
    pipeline = getattr(diffusers, name)(**parts, adapter=theirs)
    pipeline.set_progress_bar_config(disable=True)
    expected = pipeline(
        PROMPT, image=hint(), latents=noise(), adapter_conditioning_scale=0.7, **COMMON,
        height=64, width=64,
    ).images  # fmt: skip
    check(drawn(bench, Control(net, hint(), 0.7), sampler="ddim", size=(64, 64)), expected)


# --- alone


def net_of(model: Any, seed: int = 0) -> ControlNet:
    net = ControlNet.from_unet(model.unet, model.autoencoder.factor).eval()
    oracles.randomize(net, seed)
    return net.requires_grad_(False)


def test_it_composes_and_is_drawn_again_bit_for_bit(tmp_path: Any) -> None:
    model = small.model()
    net, other = net_of(model), net_of(model, 1)
    path = dr.save(net, tmp_path / "edges")
    mask = Image.fromarray(np.pad(np.full((32, 32), 255, np.uint8), 16))
    features = [
        Guidance(3.0), Inpaint(photo(), mask), ImageToImage(photo(), 0.8),
        Control(path, hint(1), 0.5, end=0.9),
        Control(other, hint(2), 0.3, guess=True, name="b", annotator=DREW),
    ]  # fmt: skip
    picture = develop(model, PROMPT, *features, seeds=[3, 4])[1]
    params = Params.from_plain(picture.params.to_plain())
    assert [used.net for used in params.controls] == [str(path), "b"]
    assert [used.annotator for used in params.controls] == [None, DREW]
    given = {"edited": photo(), "mask": mask, "nets": [path, other]}
    again = redraw(model, params, photo(), hints=[hint(1), hint(2)], **given)
    assert again.image.tobytes() == picture.image.tobytes()
    assert again.params == picture.params
    other = redraw(model, params, photo(), hints=[hint(2), hint(2)], exact=False, **given)
    assert other.params.notes[-1] == "the hint is not the one that the picture was drawn after"
    with pytest.raises(ConfigError, match="drawn after 2 hints, 1 are given"):
        redraw(model, params, photo(), hints=[hint(1)], **given)
    with pytest.raises(ConfigError, match="the hint is not the one"):
        redraw(model, params, photo(), hints=[hint(2), hint(2)], **given)
    with pytest.raises(ModelMismatchError, match="'b' is not the one that drew"):
        redraw(model, params, photo(), hints=[hint(1), hint(2)], **{**given, "nets": [path, net]})


def test_split_guidance_guesses_alike() -> None:
    model = small.model()
    net = net_of(model)
    one, two = (
        develop(model, PROMPT, Guidance(4.0, split=split), Control(net, hint(), guess=True))[0]
        for split in (False, True)
    )
    a, b = (np.asarray(p.image).astype(int) for p in (one, two))
    assert abs(a - b).max() <= 1


def test_a_weight_of_zero_and_an_interval_left_out_change_nothing() -> None:
    model = small.model()
    plain = develop(model, PROMPT)[0].image.tobytes()
    assert develop(model, PROMPT, Control(net_of(model), hint(), 0.0))[0].image.tobytes() == plain


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight": float("nan")}, "control weight nan: expected a finite number"),
        ({"start": 0.6, "end": 0.5}, "control from 0.6 to 0.5: expected 0 <= start < end <= 1"),
    ],
)
def test_numbers_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Control(net_of(small.model()), hint(), **arguments)


def test_a_network_for_another_base_or_of_another_kind() -> None:
    model: Any = small.model()
    wider = small.model(unet=replace(small.UNET, text_channels=32))
    with pytest.raises(ModelMismatchError, match=r"text of 32 channels.*take one made for it"):
        develop(model, PROMPT, Control(net_of(wider), hint()))
    with pytest.raises(ModelMismatchError, match="8 pixels of the hint for each latent, small has"):
        develop(model, PROMPT, Control(ControlNet.from_unet(model.unet), hint()))
    with pytest.raises(ModelMismatchError, match="a UNet is no control network"):
        Control(model.unet, hint())
    with pytest.raises(ModelMismatchError, match="T2I-Adapter .* is for another model"):
        develop(model, PROMPT, Control(T2IAdapter(T2IAdapterConfig(channels=(8, 8))), hint()))


def test_a_hint_of_another_aspect() -> None:
    model, net = small.model(), net_of(small.model())
    with pytest.raises(ConfigError, match=r"hint of 96x64 for a picture of 64x64: .*fit=True"):
        generate(model, PROMPT, Control(net, hint(1, (96, 64))), size=(64, 64))
    for wide in (Control(net, hint(1, (96, 64)), fit=True), Control(net, hint(1, (130, 129)))):
        assert len(develop(model, PROMPT, wide, size=(64, 64), steps=1)) == 1
    assert generate(model, PROMPT, Control(net, hint(1, (51, 33)))).run.size == (32, 48)


def test_memory_counts_what_waits() -> None:
    model = small.model()
    feature = Control(net_of(model), hint())
    run = generate(model, PROMPT, feature).run
    x, hinted = torch.zeros(2, 4, 16, 16), torch.zeros(1, 16, 16, 16)
    kept = net_of(model).residuals(x, torch.zeros(2), torch.zeros(2, 77, 24), hinted)
    exact = sum(r.numel() * 4 for r in kept)
    assert 0.6 * exact < feature.holds(run, 2) < 1.5 * exact
