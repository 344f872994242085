"""Whole runs with a small real model: features compose, seeds hold, nothing is silent."""

import dataclasses
import itertools
import math
from collections.abc import Iterable

import numpy as np
import pytest
import torch
from PIL import Image

from cases import quick
from darkroom.acceleration import Acceleration, accelerate
from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.diffusion.samplers import SAMPLERS
from darkroom.errors import (
    ConfigError,
    ModelMismatchError,
    NonFiniteError,
    NotEnoughMemoryError,
    PromptError,
)
from darkroom.generation.feature import Feature, Layer, Run
from darkroom.generation.fingerprint import fingerprint
from darkroom.generation.generate import develop, generate
from darkroom.generation.guidance import Guidance
from darkroom.generation.image import ImageToImage
from darkroom.generation.memory import bound
from darkroom.generation.metadata import read_params
from darkroom.generation.redraw import redraw
from darkroom.ops.packed import can_pack
from generation import small

PROMPT = "a red fox"


@pytest.fixture(scope="module")
def model() -> LatentDiffusion:
    return small.model()


def photo(width: int = 64, height: int = 64) -> Image.Image:
    values = np.random.default_rng(2).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def result(model: LatentDiffusion, *features: Feature, **arguments: object) -> torch.Tensor:
    *_, last = generate(model, PROMPT, *features, **arguments)
    return last.x


class Residuals(Feature):
    """What a control network does: residuals for the U-Net's skips, inside of guidance."""

    layer = Layer.NETWORK

    def wrap(self, denoise, run: Run):
        def controlled(x, sigma, cond):
            shapes = [(16, 16), (16, 16), (16, 8), (32, 8), (32, 8)]
            residuals = [torch.full((len(x), c, s, s), 0.01) for c, s in shapes]
            return denoise(x, sigma, cond.adding(residuals))

        return controlled


class Threshold(Feature):
    """The final estimate, outside of guidance."""

    layer = Layer.SAMPLE

    def wrap(self, denoise, run: Run):
        return lambda x, sigma, cond: denoise(x, sigma, cond).clamp(-3, 3)


FEATURES = {
    "guidance": lambda: Guidance(5.0, negative="blurry", rescale=0.3, interval=(0.0, 0.8)),
    "image": lambda: ImageToImage(photo(), 0.6),
    "residuals": Residuals,
    "threshold": Threshold,
}


@pytest.mark.parametrize("sampler", quick(["euler", "pndm"], sorted(SAMPLERS)))
def test_every_subset_of_features_runs_in_any_order(model, sampler) -> None:
    check_subsets(model, sampler, range(len(FEATURES) + 1))


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_all_features_run_in_any_order(model, sampler) -> None:
    check_subsets(model, sampler, (0, len(FEATURES)))


def check_subsets(model: LatentDiffusion, sampler: str, counts: Iterable[int]) -> None:
    clean = torch.zeros(())
    for count in counts:
        for names in itertools.combinations(FEATURES, count):
            features = [FEATURES[name]() for name in names]
            forward = result(model, *features, sampler=sampler, steps=3, seeds=[3])
            assert torch.isfinite(forward).all()
            assert forward.shape == (1, 4, 16, 16)
            if count > 1:
                backward = result(model, *features[::-1], sampler=sampler, steps=3, seeds=[3])
                assert torch.equal(forward, backward)
            if count == 0:
                clean = forward
            else:
                assert not torch.equal(forward, clean)  # each feature does something


@pytest.mark.parametrize("features", [(), ("guidance",), ("guidance", "image", "residuals")])
def test_features_leave_the_first_noise_alone(model, features) -> None:
    chosen = [FEATURES[name]() for name in features]
    assert torch.equal(
        generate(model, PROMPT, *chosen, seeds=[3]).run.initial,
        generate(model, PROMPT, seeds=[3]).run.initial,
    )


@pytest.mark.parametrize(
    "sampler", quick(["dpmpp_2m_sde", "euler", "euler_ancestral", "lcm", "pndm"], sorted(SAMPLERS))
)
def test_an_image_of_a_batch_is_its_seed_alone(model, sampler) -> None:
    features = (FEATURES["guidance"](), FEATURES["image"]())
    seeds = [5, 0, 2**63 + 11]
    batch = develop(model, PROMPT, *features, seeds=seeds, sampler=sampler, steps=4)
    for picture, seed in zip(batch, seeds, strict=True):
        assert picture.params.seed == seed
        alone = develop(model, PROMPT, *features, seeds=[seed], sampler=sampler, steps=4)[0]
        difference = np.asarray(picture.image, int) - np.asarray(alone.image, int)
        assert abs(difference).max() <= 1
    assert not np.array_equal(batch[0].image, batch[1].image)


def test_the_same_call_gives_the_same_bits(model) -> None:
    features = (FEATURES["guidance"](), FEATURES["image"]())
    first = result(model, *features, seeds=[1, 2], sampler="dpmpp_2m_sde")
    torch.randn(100)  # nobody reads the global generator
    assert torch.equal(first, result(model, *features, seeds=[1, 2], sampler="dpmpp_2m_sde"))


@pytest.mark.parametrize("prompt", ["a fox", "a fox AND a cat :0.5 AND a dog :-0.3", "a " * 100])
def test_one_after_another_is_the_same_as_together(model, prompt) -> None:
    steps = [
        generate(model, prompt, Guidance(7.5, "bad", split=split), seeds=[1, 2], steps=3)
        for split in (False, True)
    ]
    for together, split in zip(*steps, strict=True):
        assert (together.x - split.x).abs().max() <= 1e-5 * together.x.abs().max()


def test_calls_are_batched(model) -> None:
    """2 B rows in one call; B without guidance; one by one on request or by unequal length."""
    sizes: list[int] = []

    class Count(Feature):
        def wrap(self, denoise, run):
            def counted(x, sigma, cond):
                sizes.append(len(x))
                return denoise(x, sigma, cond)

            return counted

    for prompt, features, expected in (
        (PROMPT, (), [4]),
        (PROMPT, (Guidance(1.0),), [2]),
        (PROMPT, (Guidance(7.5),), [4]),
        (PROMPT, (Guidance(7.5, split=True),), [2, 2]),
        ("a AND b", (Guidance(7.5),), [6]),
        ("a AND b", (Guidance(1.0),), [6]),
        ("a :0.4 AND b :0.6", (Guidance(1.0),), [4]),
        ("a " * 100, (Guidance(7.5),), [2, 2]),
        (PROMPT, (Guidance(7.5, interval=(0.0, 0.5)),), [4]),
    ):
        sizes.clear()
        next(generate(model, prompt, *features, Count(), seeds=[1, 2], steps=2))
        assert sizes == expected, (prompt, features)
    sizes.clear()
    for _ in generate(model, PROMPT, Guidance(7.5, interval=(0.5, 1.0)), Count(), steps=2):
        pass
    assert sizes == [1, 2]


def test_and_is_composable_diffusion(model) -> None:
    """uncond + sum_i w_i * scale * (cond_i - uncond), against single calls of the network."""
    prompt, scale = "a fox AND a cat :0.5", 3.0
    step = next(generate(model, prompt, Guidance(scale), seeds=[4], steps=3))
    run = generate(model, prompt, seeds=[4], steps=3).run
    sigma = run.levels.sigmas[0]
    x = run.levels.initial_scale * run.initial

    def estimate(text: str) -> torch.Tensor:
        cond = model.text_encoder([text], (64, 64))
        return model.denoise(x, sigma, cond, run.levels.timestep(sigma))

    without = estimate("")
    expected = without + scale * (estimate("a fox ") - without)
    expected = expected + 0.5 * scale * (estimate(" a cat ") - without)
    torch.testing.assert_close(step.denoised, expected, rtol=1e-4, atol=1e-4 * sigma)


def test_a_prompt_changes_at_its_step(model) -> None:
    plain, changing = (
        [step.denoised for step in generate(model, prompt, seeds=[4], steps=6)]
        for prompt in ("a fox", "a [fox:cat:3]")
    )
    same = [torch.equal(a, b) for a, b in zip(plain, changing, strict=True)]
    assert same == [True, True, True, False, False, False]


def test_every_step_can_be_the_last(model) -> None:
    run = generate(model, PROMPT, seeds=[1], steps=5)
    assert len(run) == 5
    assert [step.index for step, _ in zip(run, range(3), strict=False)] == [0, 1, 2]
    assert torch.is_grad_enabled()  # a `with` around a yield would leak
    assert len(generate(model, PROMPT, steps=50, sampler="pndm")) == 51
    assert len(generate(model, PROMPT, steps=50, sampler="heun")) == 99
    for sampler in SAMPLERS:
        run = generate(model, PROMPT, steps=4, sampler=sampler)
        assert len(list(run)) == len(run)


def test_results_can_be_trained_on(model) -> None:
    """inference_mode would make them unusable."""
    x = result(model, steps=2)
    weight = torch.ones((), requires_grad=True)
    (x * weight).square().mean().backward()
    assert weight.grad is not None


@pytest.mark.parametrize("format", ["png", "webp"])
def test_a_picture_is_redrawn_bit_for_bit(model, tmp_path, format) -> None:
    features = (FEATURES["guidance"](), FEATURES["image"]())
    prompt = "a [red:狐:0.5] fox AND a (cat:1.2) :0.5"
    pictures = develop(
        model, prompt, *features, seeds=[4, 5, 6], steps=5, sampler="dpmpp_2m_sde",
        spacing="karras",
    )  # fmt: skip
    path = pictures[1].save(tmp_path / f"x.{format}", quality=100)
    again = redraw(model, path, photo())
    assert np.array_equal(again.image, pictures[1].image)
    assert again.params == pictures[1].params == read_params(path)


DEFAULTS = [*itertools.product([None, *sorted(SAMPLERS)], [None, "karras", "trailing"])]


@pytest.mark.parametrize(
    ("sampler", "spacing"),
    quick([d for d in DEFAULTS if d[1] is None or d[0] in ("euler", "dpmpp_2m")], DEFAULTS),
)
def test_defaults_are_redrawn_as_they_were(model, sampler, spacing) -> None:
    if sampler == "lcm" and spacing is not None:
        pytest.skip("lcm has a grid of its own")
    picture = develop(model, PROMPT, sampler=sampler, spacing=spacing, steps=3)[0]
    assert picture.params.sampler == (sampler or "euler")
    assert np.array_equal(redraw(model, picture.params).image, picture.image)


def test_what_cannot_be_redrawn_says_so(model) -> None:
    picture = develop(model, PROMPT, ImageToImage(photo(), 0.5))[0]
    with pytest.raises(ConfigError, match="give that image"):
        redraw(model, picture.params)
    with pytest.raises(ConfigError, match="not the one"):
        redraw(model, picture.params, photo().rotate(90))
    redraw(model, picture.params, photo().rotate(90), exact=False)
    with pytest.raises(ModelMismatchError, match="fingerprint"):
        redraw(small.model(1), picture.params, photo())
    noise = torch.zeros(1, 4, 16, 16)
    with pytest.raises(ConfigError, match="noise"):
        redraw(model, develop(model, PROMPT, noise=noise)[0].params)
    with pytest.raises(ConfigError, match="leave the image out"):
        redraw(model, develop(model, PROMPT)[0].params, photo())


class Broken(torch.nn.Module):
    """A real part whose output turns non-finite at one call."""

    def __init__(self, part: torch.nn.Module, call: int, value: float, forever: bool) -> None:
        super().__init__()
        self.part, self.call, self.value, self.forever = part, call, value, forever
        self.calls = 0
        self.config = part.config
        for name in ("factor", "channels"):
            if hasattr(part, name):
                setattr(self, name, getattr(part, name))

    def _spoil(self, output: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == self.call or (self.forever and self.calls > self.call):
            output = output.clone()
            output.view(-1)[7] = self.value
        return output

    def forward(self, *args):
        return self._spoil(self.part(*args))

    def decode(self, latents):
        if latents.device.type == "meta":
            return self.part.decode(latents)
        return self._spoil(self.part.decode(latents))

    def encode(self, image, noise=None):
        return self._spoil(self.part.encode(image, noise))


VALUES = (math.nan, math.inf, -math.inf)


@pytest.mark.parametrize("call", quick([1, 4, 7], range(1, 8)))
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
def test_a_broken_network_is_an_error(model, tmp_path, call, value, sampler) -> None:
    broken = dataclasses.replace(model, unet=Spoiled(model.unet, call, value))
    with pytest.raises(NonFiniteError, match=rf"step {call} of 7.*{sampler}, float32"):
        develop(broken, PROMPT, steps=7, sampler=sampler)[0].save(tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


class Spoiled(Broken):
    """Counts calls with data only: the memory estimate calls without."""

    def __init__(self, part: torch.nn.Module, call: int, value: float) -> None:
        super().__init__(part, call, value, forever=False)

    def forward(self, *args):
        return self.part(*args) if args[0].device.type == "meta" else super().forward(*args)


@pytest.mark.parametrize("value", quick([math.inf], VALUES))
@pytest.mark.parametrize("tile", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_broken_decode_is_redone_once(model, value, tile, dtype) -> None:
    weak = small.model().autoencoder.to(dtype)
    broken = dataclasses.replace(model, autoencoder=Broken(weak, 1, value, forever=False))
    first, second = develop(broken, PROMPT, seeds=[1, 2], tile=tile)
    assert first.params.notes == ("decoded again in float32: the first decode was not finite",)
    assert second.params.notes == ()
    assert np.asarray(first.image).std() > 1
    broken = dataclasses.replace(model, autoencoder=Broken(weak, 1, value, forever=True))
    with pytest.raises(NonFiniteError, match="autoencoder, decode.*again in float32"):
        develop(broken, PROMPT, tile=tile)


@pytest.mark.parametrize("value", VALUES)
def test_a_broken_encode_is_redone_once(model, value) -> None:
    broken = dataclasses.replace(model, autoencoder=Broken(model.autoencoder, 1, value, False))
    picture = develop(broken, PROMPT, ImageToImage(photo(), 0.5))[0]
    assert picture.params.notes == ("image encoded in float32",)


def test_the_memory_is_checked_before_the_work(model) -> None:
    with pytest.raises(NotEnoughMemoryError, match=r"needs .* GB.* try a smaller"):
        generate(model, PROMPT, size=(4096, 4096), memory_limit=10**6)
    assert generate(model, PROMPT, memory_limit=10**9).need is not None


WRONG = {
    "sampler 'dpm_2m'.*did you mean": {"sampler": "dpm_2m"},
    "spacing 'kerras'.*did you mean": {"spacing": "kerras"},
    "steps 0": {"steps": 0},
    "steps 2.5": {"steps": 2.5},
    "steps": {"steps": 2000},
    "multiples of 4": {"size": (66, 64)},
    "size 0x64": {"size": (64, 0)},
    "seeds 7": {"seeds": 7},
    "seeds": {"seeds": []},
    "seed -1": {"seeds": [-1]},
    "seed 1.5": {"seeds": [1.5]},
    "no option 'eta'": {"sampler": "euler", "options": {"eta": 1}},
    "noise": {"noise": torch.zeros(1, 4, 8, 8)},
}


@pytest.mark.parametrize("message", WRONG)
def test_bad_arguments_are_one_line_at_the_call(model, message) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        generate(model, PROMPT, **WRONG[message])
    assert "\n" not in str(caught.value)


def test_bad_features_are_one_line_at_the_call(model) -> None:
    with pytest.raises(ConfigError, match="does nothing at guidance 1"):
        Guidance(1.0, negative="blurry")
    with pytest.raises(ConfigError, match="scale nan"):
        Guidance(math.nan)
    with pytest.raises(ConfigError, match="rescale 2"):
        Guidance(7.5, rescale=2)
    with pytest.raises(ConfigError, match="interval"):
        Guidance(7.5, interval=(0.5, 0.5))
    for strength in (0, 1.1, -1):
        with pytest.raises(ConfigError, match="strength"):
            ImageToImage(photo(), strength)
    with pytest.raises(ConfigError, match="strength 0.1 of 4 steps"):
        generate(model, PROMPT, ImageToImage(photo(), 0.1), steps=4)
    with pytest.raises(ConfigError, match="two guidance features"):
        generate(model, PROMPT, Guidance(7.5), Guidance(2.0))
    with pytest.raises(ConfigError, match="is no feature"):
        generate(model, PROMPT, 7.5)
    with pytest.raises(ConfigError, match="expected one string"):
        generate(model, ["a", "b"])
    with pytest.raises(PromptError, match="<lora:x:1>"):
        generate(model, "a fox <lora:x:1>")
    with pytest.raises(PromptError, match="<lora:x:1>"):
        generate(model, PROMPT, Guidance(7.5, negative="<lora:x:1>"))
    with pytest.raises(PromptError, match="AND has no meaning"):
        generate(model, PROMPT, Guidance(7.5, negative="a AND b"))
    with pytest.raises(TypeError, match="no argument 'guidance_scal'"):
        generate(model, PROMPT, guidance_scal=3)


@pytest.mark.parametrize("own", [None, 1.0, 3.0, 5.0])
def test_the_guidance_is_the_models_own(model, own) -> None:
    """As the command line and diffusers have it; 1.0 says no, and the metadata tells it."""
    settings = {"size": (64, 64), "steps": 2} | ({} if own is None else {"guidance": own})
    model = dataclasses.replace(model, settings=settings)
    expected = 7.5 if own is None else own
    assert model.guidance == expected
    picture = develop(model, PROMPT)[0]
    assert picture.params.guidance == expected
    said = develop(model, PROMPT, Guidance(expected))[0]
    assert picture.image.tobytes() == said.image.tobytes()
    assert redraw(model, picture.params).image.tobytes() == picture.image.tobytes()
    without = develop(model, PROMPT, Guidance(1.0))[0]
    assert without.params.guidance == 1.0
    assert (without.image.tobytes() == picture.image.tobytes()) == (expected == 1.0)
    if expected > 1:
        negative = generate(model, PROMPT, Guidance(negative="blurry"))
        assert (negative.params.guidance, negative.params.negative) == (expected, "blurry")
    else:
        with pytest.raises(ConfigError, match="does nothing at guidance 1"):
            generate(model, PROMPT, Guidance(negative="blurry"))


def test_a_feature_may_carry_out_the_loras(model) -> None:
    seen = []

    class Adapters(Feature):
        takes_adapters = True

        def prepare(self, run: Run) -> Run:
            seen.append(run.prompt)
            return run

    with_tag = result(model, Adapters(), steps=2)
    *_, tagged = generate(model, "a red fox<lora:x:1>", Adapters(), steps=2)
    assert seen == [PROMPT, "a red fox<lora:x:1>"]
    assert torch.equal(with_tag, tagged.x)


def test_the_size_is_the_image_s_or_the_model_s(model) -> None:
    assert develop(model, PROMPT, steps=1)[0].image.size == (64, 64)
    wide = develop(model, PROMPT, ImageToImage(photo(103, 66), 0.5), steps=2)[0]
    assert wide.image.size == (100, 64)
    fitted = develop(model, PROMPT, ImageToImage(photo(103, 66), 0.5), steps=2, size=(32, 64))[0]
    assert fitted.image.size == (64, 32)


def test_input_channels_beyond_the_latent(model) -> None:
    """The seam carries ``concat``: what an inpainting or depth checkpoint is told."""
    unet = dataclasses.replace(small.UNET, in_channels=5)

    class Depth(Feature):
        def prepare(self, run: Run) -> Run:
            return dataclasses.replace(run, concat=torch.ones_like(run.initial[:, :1]))

    x = result(small.model(unet=unet), Depth(), Guidance(3.0), seeds=[1, 2], steps=2)
    assert x.shape == (2, 4, 16, 16)


def test_a_model_of_another_kind_says_what_it_needs(model) -> None:
    nine = small.model(unet=dataclasses.replace(small.UNET, in_channels=9))
    with pytest.raises(ModelMismatchError, match="9 input channels .a mask and the masked image"):
        generate(nine, PROMPT)
    with pytest.raises(ModelMismatchError, match="a UNet alone"):
        generate(model.unet, PROMPT)


def test_half_precision() -> None:
    """The state stays float32; a batch equals its seeds to 45 dB, redrawing is exact."""
    model = small.model()
    for part in (model.unet, model.autoencoder, model.text_encoder):
        part.bfloat16()
    features = (Guidance(4.0), ImageToImage(photo(), 0.7))
    run = generate(model, PROMPT, *features, seeds=[1, 2], steps=4)
    assert all(step.x.dtype == torch.float32 for step in run)
    pictures = run.pictures()
    assert pictures[0].params.dtype == "bfloat16"
    alone = develop(model, PROMPT, *features, seeds=[2], steps=4)[0]
    difference = np.asarray(alone.image, float) - np.asarray(pictures[1].image, float)
    assert -10 * math.log10((difference**2).mean() / 255**2 + 1e-12) > 45
    again = redraw(model, pictures[1].params, photo())
    assert np.array_equal(again.image, pictures[1].image)


def test_packed_weights_keep_their_fingerprint_and_their_picture() -> None:
    if not can_pack():
        pytest.skip("this PyTorch cannot pack weights")
    model = small.model()
    before, weights = fingerprint(model), bound(model, (64, 64), 1).weights
    plain = result(model, Guidance(4.0), seeds=[1], steps=2)
    with accelerate(model, Acceleration(packed=True)):
        assert fingerprint(model) == before
        assert bound(model, (64, 64), 1).weights == weights
        packed = result(model, Guidance(4.0), seeds=[1], steps=2)
        assert torch.equal(packed, result(model, Guidance(4.0), seeds=[1], steps=2))
    torch.testing.assert_close(packed, plain, rtol=1e-4, atol=1e-3)
    other = small.model()
    with torch.no_grad():
        next(other.unet.parameters()).view(-1)[0] += 1e-3
    assert fingerprint(other) != before
