"""The decoder with fewer multiplications against the plain one."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import oracles
from darkroom.models.sam import folded, mask_decoder
from darkroom.models.sam.config import DecoderConfig, SamConfig, VitConfig
from darkroom.models.sam.folded import FOLDED, FoldedAttention, FoldedDecoder
from darkroom.models.sam.mask_decoder import NarrowAttention
from darkroom.models.sam.network import Sam

SMALL = SamConfig(
    size=128,
    channels=64,
    encoder=VitConfig(patch=8, channels=16, layers=1, heads=1, hidden=16, window=4),
    decoder=DecoderConfig(heads=2, hidden=24, iou_hidden=16),
)  # heads of 16 channels: more than a point's 7 tokens, fewer than a quarter of 256 places


def twins(config: SamConfig = SMALL) -> tuple[Sam, Sam]:
    plain = Sam(config).eval()
    oracles.randomize(plain, 0)
    fast = copy.deepcopy(plain)
    for module in fast.modules():
        module.__class__ = FOLDED.get(type(module), type(module))
    return plain, fast


def asked(model: Sam, prompts: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    side = model.config.grid
    features = torch.randn(1, model.config.channels, side, side, generator=g)
    points = torch.rand(prompts, 1, 2, generator=g) * model.config.size
    encoder = model.prompt_encoder
    tokens = encoder.tokens(points, torch.ones(prompts, 1))
    return features + encoder.dense(), encoder.places(), tokens


@pytest.mark.parametrize("multiply", [True, False])
@pytest.mark.parametrize("shared", [True, False])
@torch.no_grad()
def test_attention(monkeypatch, shared: bool, multiply: bool) -> None:
    monkeypatch.setattr(folded, "can_multiply", lambda: multiply)
    torch.manual_seed(0)
    plain = NarrowAttention(64, 32, 2)
    fast = copy.deepcopy(plain)
    fast.__class__ = FoldedAttention
    tokens, places = torch.randn(3, 7, 64), torch.randn(1 if shared else 3, 80, 64)
    for x in ((tokens, places, places + 1), (places, tokens, tokens + 1), (tokens,) * 3):
        torch.testing.assert_close(fast(*x), plain(*x), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_whole_decoder() -> None:
    plain, fast = twins()
    inputs = asked(plain)
    assert isinstance(fast.mask_decoder, FoldedDecoder)
    for theirs, ours in zip(plain.mask_decoder(*inputs), fast.mask_decoder(*inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["plain", "folded"])
@torch.no_grad()
def test_above_gives_what_is_above(monkeypatch, kind: str) -> None:
    model = twins()[kind == "folded"]
    inputs = asked(model)
    logits, iou = model.mask_decoder(*inputs, slice(1, None))
    least = float(iou.median()) + 1e-3
    painted = []
    real = type(model.mask_decoder).painted
    monkeypatch.setattr(
        type(model.mask_decoder),
        "painted",
        lambda self, weights, *rest: (painted.append(weights.shape[1]), real(self, weights, *rest))[
            1
        ],
    )
    found = list(model.mask_decoder.above(*inputs, slice(1, None), least))
    good = iou > least
    assert 0 < good.sum() < good.numel()
    assert [p for p, _, _ in found] == good.any(dim=1).nonzero().flatten().tolist()
    assert sum(painted) == good.sum()  # the others were not computed
    for p, scores, masks in found:
        torch.testing.assert_close(scores, iou[p, good[p]], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(masks, logits[p, good[p]], rtol=1e-4, atol=1e-4)
    assert mask_decoder.AT_ONCE < 5  # the prompts took several rounds
    assert not list(model.mask_decoder.above(*inputs, slice(1, None), 1e9))


def test_it_steps_aside_for_training_and_many_tokens() -> None:
    plain, fast = twins(replace(SMALL, decoder=replace(SMALL.decoder, heads=8)))  # 4 channels
    with torch.no_grad():
        inputs = asked(plain)
        expected, actual = plain.mask_decoder(*inputs)[1], fast.mask_decoder(*inputs)[1]
    assert torch.equal(expected, actual)
    plain, fast = twins()
    for model in (plain, fast):
        model.mask_decoder(*inputs)[0].square().mean().backward()
    for ours, theirs in zip(fast.parameters(), plain.parameters(), strict=True):
        if theirs.grad is not None:
            assert torch.equal(ours.grad, theirs.grad)
