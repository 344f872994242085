"""Segment anything against transformers' SamModel: every stage, every kind of prompt, gradients."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import SamConfig as TheirConfig
from transformers import SamModel

import oracles
from darkroom.models.sam.config import (
    MOBILE_SAM,
    SAM_B,
    SAM_H,
    SAM_L,
    DecoderConfig,
    SamConfig,
    TinyVitConfig,
    VitConfig,
)
from darkroom.models.sam.layers import joined, windows
from darkroom.models.sam.network import Sam, enlarged
from darkroom.weights.assemble import on_meta
from darkroom.weights.layouts.sam import huggingface

TINY = SamConfig(
    size=64,
    channels=32,
    encoder=VitConfig(
        patch=8, channels=32, layers=3, heads=2, hidden=48, window=3, global_layers=(1,)
    ),
    decoder=DecoderConfig(heads=4, hidden=40, iou_hidden=24, iou_layers=4),
)
TINY_VIT = replace(
    TINY,
    encoder=TinyVitConfig(
        channels=(8, 16, 24, 32), blocks=(1, 1, 2, 1), heads=(2, 3, 4), windows=(3, 4, 2)
    ),
)


def theirs(config: SamConfig, seed: int = 0) -> SamModel:
    sizes = huggingface.sam_json(config)
    parts = {name: sizes[name] for name in sizes if name.endswith("_config")}
    model = SamModel(TheirConfig(**parts, attn_implementation="eager")).eval()
    oracles.randomize(model, seed)
    draw = torch.Generator().manual_seed(seed)
    matrix = torch.randn(2, config.channels // 2, generator=draw)
    model.shared_image_embedding.positional_embedding.data = matrix
    model.prompt_encoder.shared_embedding.positional_embedding.data = matrix
    return model


def pair(config: SamConfig) -> tuple[SamModel, Sam]:
    model, ours = theirs(config), Sam(config).eval()
    ours.load_state_dict(huggingface.HUGGINGFACE.convert(model.state_dict(), config))
    return model, ours


@pytest.fixture(scope="module")
def both() -> tuple[SamModel, Sam]:
    return pair(TINY)


def picture(batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("config", "tensors", "numbers"),
    [
        (SAM_B, 314, 93_735_728),
        (SAM_L, 482, 312_343_088),
        (SAM_H, 594, 641_090_864),
        (MOBILE_SAM, 435, 9_818_591),  # without the classifier
    ],
)
def test_published_sizes(config, tensors, numbers):
    with on_meta():
        model = Sam(config)
    state = model.state_dict()
    counts = (len(state), sum(t.numel() for t in state.values()))
    assert counts == (tensors, numbers)
    parts = [p.state_dict().values() for p in (model.prompt_encoder, model.mask_decoder)]
    counts = [(len(part), sum(t.numel() for t in part)) for part in parts]
    assert counts == [(17, 6476), (120, 4_058_340)]


@torch.no_grad()
def test_features(both):
    """Windows of 3 over 8 patches: those at the edge are filled up."""
    model, ours = both
    x = picture(2)
    assert oracles.largest(ours.encode(x), model.get_image_embeddings(x)) < 1e-5


@torch.no_grad()
def test_blocks_one_by_one(both):
    model, ours = both
    x = ours.image_encoder.patches(picture()).permute(0, 2, 3, 1) + ours.image_encoder.position
    for layer, block in zip(model.vision_encoder.layers, ours.image_encoder.blocks, strict=True):
        assert oracles.largest(block(x), layer(x)) < 1e-5
        x = block(x)


POINTS = torch.tensor([[[3.0, 40.0], [62.5, 10.0]], [[30.0, 31.0], [0.0, 63.0]]])
LABELS = torch.tensor([[1, 0], [1, 1]])
BOXES = torch.tensor([[2.0, 3.0, 40.0, 50.0], [10.0, 11.0, 12.0, 60.0]])


@torch.no_grad()
@pytest.mark.parametrize("kind", ["points", "boxes", "points boxes", "points masks", "boxes masks"])
@pytest.mark.parametrize("candidates", [1, 3])
def test_masks_of_every_kind_of_prompt(both, kind, candidates):
    model, ours = both
    draw = torch.Generator().manual_seed(2)
    masks = torch.randn(1, 1, 32, 32, generator=draw)
    features = ours.encode(picture())
    given: dict = {"image_embeddings": features, "multimask_output": candidates > 1}
    mine: dict = {}
    if "points" in kind:
        given |= {"input_points": POINTS[None], "input_labels": LABELS[None]}
        mine |= {"points": POINTS, "labels": LABELS}
    if "boxes" in kind:
        given["input_boxes"], mine["boxes"] = BOXES[None], BOXES
    if "masks" in kind:  # transformers takes one for all
        given["input_masks"], mine["masks"] = masks, masks.expand(2, -1, -1, -1)
    expected = model(**given)
    logits, iou = ours.decode(features, **mine, candidates=candidates)
    assert logits.shape == (2, candidates, 32, 32)
    assert iou.shape == (2, candidates)
    assert oracles.largest(logits, expected.pred_masks[0]) < 1e-4 * logits.abs().max()
    assert oracles.largest(iou, expected.iou_scores[0]) < 1e-5


@torch.no_grad()
def test_tokens_and_places(both):
    model, ours = both
    sparse, dense = model.prompt_encoder(POINTS[None], LABELS[None], None, None)
    assert oracles.largest(ours.prompt_encoder.tokens(POINTS, LABELS), sparse[0]) < 1e-5
    assert oracles.largest(ours.prompt_encoder.dense(), dense[:, :, :1, :1]) == 0
    places = model.get_image_wide_positional_embeddings()
    assert oracles.largest(ours.prompt_encoder.places(), places) < 1e-5
    filled = ours.prompt_encoder.tokens(POINTS, torch.tensor([[1, -1], [1, 1]]))
    assert torch.equal(filled[0, 1], ours.prompt_encoder.no_point[0])


@torch.no_grad()
def test_prompts_of_several_pictures(both):
    """A picture's features for each prompt, or one picture for all: the same masks."""
    _, ours = both
    features = ours.encode(picture(2))
    together, iou = ours.decode(features, boxes=BOXES)
    for n in range(2):
        alone, expected = ours.decode(features[n : n + 1], boxes=BOXES[n : n + 1])
        assert oracles.largest(together[n], alone[0]) < 1e-4 * alone.abs().max()
        assert oracles.largest(iou[n], expected[0]) < 1e-5
    sure, _ = ours.decode(features, boxes=BOXES, candidates=1)
    assert oracles.largest(together[:, :1], sure) < 1e-5 * sure.abs().max()


@torch.no_grad()
def test_a_mask_alone_is_a_prompt(both):
    _, ours = both
    features = ours.encode(picture())
    masks, _ = ours.decode(features, boxes=BOXES, candidates=1)
    assert ours.decode(features, masks=masks)[0].shape == (2, 4, 32, 32)


@pytest.mark.parametrize("config", [TINY, TINY_VIT])
def test_gradients_reach_every_number(config):
    """One encoding, several decodings, as in training."""
    model = Sam(config)
    features = model.encode(model.normalised(torch.rand(2, 3, 64, 48) * 255))
    grid = config.grid
    assert features.shape == (2, 32, grid, grid)
    logits, iou = model.decode(features, points=POINTS, labels=LABELS)
    first = logits[:, :1].detach()
    again, better = model.decode(features, boxes=BOXES, masks=first, candidates=3)
    labels = torch.tensor([[1, 0], [1, -1]])
    third, _ = model.decode(features, points=POINTS, labels=labels, candidates=1)
    (logits.mean() + iou.sum() + again.mean() + better.sum() + third.mean()).backward()
    idle = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle == []


@torch.no_grad()
def test_logits_in_the_pictures_own_pixels():
    """As the paper's code does it: to S x S, without what was filled up, to the picture."""
    model = Sam(TINY)
    logits = torch.randn(2, 3, 32, 32)
    whole = torch.nn.functional.interpolate(logits, (64, 64), mode="bilinear")
    cut = torch.nn.functional.interpolate(whole[..., :48, :64], (33, 44), mode="bilinear")
    assert torch.equal(enlarged(logits, 64, (48, 64), (33, 44)), cut)
    pixels = torch.full((1, 3, 48, 64), 123.675)
    prepared = model.normalised(pixels)
    assert prepared.shape == (1, 3, 64, 64)
    assert prepared[0, 0, :48].abs().max() == 0  # red is the mean
    assert prepared[..., 48:, :].abs().max() == 0
    assert prepared[0, 1, 0, 0].item() == pytest.approx((123.675 - 116.28) / 57.12)


def test_windows_and_back():
    x = torch.randn(2, 7, 5, 4)
    cut = windows(x, 3)
    assert cut.shape == (2 * 3 * 2, 3, 3, 4)
    assert torch.equal(cut[1, :, :2], x[0, :3, 3:])  # the second is to the right of the first
    assert cut[1, :, 2].abs().max() == 0
    assert torch.equal(joined(cut, 7, 5), x)
    filled = windows(x, 3, torch.arange(4.0))
    assert (filled[cut == 0].view(-1, 4) == torch.arange(4.0)).all()
    assert torch.equal(joined(filled, 7, 5), x)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "a prompt needs points, a box or a mask"),
        ({"points": POINTS}, "points and labels go together"),
        ({"points": POINTS, "labels": LABELS[:1]}, r"labels of shape \(1, 2\), expected \(2, 2\)"),
        ({"boxes": BOXES[0]}, r"boxes of shape \(4,\), expected \(4, 4\)"),
        (
            {"boxes": BOXES, "masks": torch.zeros(2, 1, 64, 64)},
            r"masks of shape .*, expected \(2, 1, 32, 32\)",
        ),
        ({"boxes": BOXES, "candidates": 2}, "2 candidates; expected 1, 3 or None"),
    ],
)
def test_wrong_prompts(given, problem):
    with pytest.raises(ValueError, match=problem):
        Sam(TINY).decode(torch.zeros(1, 32, 8, 8), **given)


def test_wrong_pictures_and_features():
    model = Sam(TINY)
    with pytest.raises(ValueError, match=r"pictures of \(B, 3, 64, 64\), got \(1, 3, 64, 48\)"):
        model.encode(torch.zeros(1, 3, 64, 48))
    with pytest.raises(ValueError, match="features of 3 pictures for 2 prompts"):
        model.decode(torch.zeros(3, 32, 8, 8), boxes=BOXES)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"size": 60}, "size by the patch: 8 does not divide 60"),
        ({"channels": 36}, "channels by 8: 8 does not divide 36"),
        ({"decoder": DecoderConfig(heads=3)}, "the decoder's heads: 3 does not divide 32"),
        ({"mask_channels": 6}, "mask_channels by 4"),
        ({"encoder": VitConfig(patch=8, heads=5)}, "encoder's channels by its heads"),
        ({"encoder": TinyVitConfig(strides=(2, 1))}, "strides of all but one"),
    ],
)
def test_sizes_that_do_not_fit(change, problem):
    with pytest.raises(ValueError, match=problem):
        replace(TINY, **change)
