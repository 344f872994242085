"""The book's CLIP: its parts against transformers and plain PyTorch, its checkpoints."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import darkroom as dr
import oracles
from darkroom.config import from_dict, to_dict
from darkroom.models.distilbert import DistilBertConfig
from darkroom.models.dual_encoder import BOOK_CLIP, DualEncoder, DualEncoderConfig, Projection
from darkroom.models.resnet import ResNetConfig
from darkroom.weights.assemble import on_meta
from darkroom.weights.inspect import inspect
from darkroom.weights.layouts.alone import ALONE
from darkroom.weights.layouts.dual_encoder import BOOK
from darkroom.weights.save import save

TINY = DualEncoderConfig(
    image=ResNetConfig(channels=8, blocks=(1, 1, 1, 1)),
    text=DistilBertConfig(vocabulary=60, positions=20, channels=64, layers=2, heads=1, hidden=32),
    projection=24,
)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 60, (2, 9), generator=generator)
    mask = torch.ones(2, 9, dtype=torch.int64)
    mask[1, 4:] = 0
    return torch.rand(2, 3, 64, 64, generator=generator), ids, mask


def test_sizes_of_the_book() -> None:
    with on_meta():
        model = DualEncoder(BOOK_CLIP)
        state = model.state_dict()
    count = {n: sum(p.numel() for p in m.parameters()) for n, m in model.named_children()}
    assert count == {
        "image": 23_508_032,
        "text": 66_362_880,
        "image_projection": 2048 * 256 + 256 + 256 * 256 + 256 + 2 * 256,
        "text_projection": 768 * 256 + 256 + 256 * 256 + 256 + 2 * 256,
    }
    names = BOOK.revert(state, BOOK_CLIP)
    assert len(names) == 318 + 100 + 2 * 6
    for name, shape in (
        ("image_encoder.model.layer4.2.bn3.running_var", (2048,)),
        ("text_encoder.model.transformer.layer.5.attention.q_lin.weight", (768, 768)),
        ("image_projection.projection.weight", (256, 2048)),
        ("text_projection.fc.bias", (256,)),
        ("text_projection.layer_norm.weight", (256,)),
    ):
        assert names[name].shape == shape
    assert BOOK.convert(names, BOOK_CLIP).keys() == state.keys()


@torch.no_grad()
def test_parts_follow_the_book() -> None:
    model = oracles.randomize(DualEncoder(TINY)).eval()
    pixels, ids, mask = batch()
    images, texts = model(pixels, ids, mask)
    assert images.shape == texts.shape == (2, 24)
    assert torch.equal(images, model.encode_image(pixels))
    assert torch.equal(texts, model.encode_text(ids, mask))
    features = model.text(ids, mask)[:, 0]
    torch.testing.assert_close(texts, model.text_projection(features))
    head = model.text_projection
    first = features @ head.linear1.weight.T + head.linear1.bias
    second = nn.GELU()(first) @ head.linear2.weight.T + head.linear2.bias
    total = first + second
    scaled = (total - total.mean(-1, True)) / (
        total.var(-1, unbiased=False, keepdim=True) + 1e-5
    ).sqrt()
    torch.testing.assert_close(texts, scaled * head.norm.weight + head.norm.bias)


def test_dropout_of_the_projection() -> None:
    """It falls on the second linear only: what goes around it is kept."""
    head = Projection(4, 512, 1.0).train()
    x = torch.randn(3, 4)
    torch.testing.assert_close(head(x), head.norm(head.linear1(x)))
    head = Projection(4, 512, 0.1)
    assert not torch.equal(head(x), head(x))
    assert torch.equal(head.eval()(x), head(x))


def test_gradients_reach_every_parameter() -> None:
    model = DualEncoder(TINY).train()
    images, texts = model(*batch())
    (images * texts.flip(0)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_a_classifier_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 0"):
        DualEncoder(replace(TINY, image=replace(TINY.image, classes=3)))


@pytest.mark.parametrize("container", ["plain", "state_dict"])
@torch.no_grad()
def test_the_books_checkpoint(container: str, tmp_path) -> None:
    model = oracles.randomize(DualEncoder(TINY)).eval()
    state = BOOK.revert(model.state_dict(), TINY)
    path = tmp_path / "pytorch_model.bin"
    torch.save(state if container == "plain" else {"state_dict": state, "epoch": 3}, path)
    report = inspect(path)
    assert (report.kind, report.layout) == ("CLIP from scratch", "book")
    again = dr.load(path, device="cpu")
    assert again.config == TINY
    for one, other in zip(again(*batch()), model(*batch()), strict=True):
        assert torch.equal(one, other)


@torch.no_grad()
def test_towers_of_transformers_inside(tmp_path) -> None:
    """The text tower of a checkpoint is a DistilBertModel under its own names."""
    from transformers import DistilBertConfig as Config
    from transformers import DistilBertModel

    text = TINY.text
    reference = oracles.randomize(
        DistilBertModel(
            Config(
                vocab_size=text.vocabulary, max_position_embeddings=text.positions,
                dim=text.channels, n_layers=text.layers, n_heads=text.heads,
                hidden_dim=text.hidden,
            )
        )
    ).eval()  # fmt: skip
    state = BOOK.revert(DualEncoder(TINY).state_dict(), TINY)
    for name, tensor in reference.state_dict().items():
        assert f"text_encoder.model.{name}" in state
        state[f"text_encoder.model.{name}"] = tensor
    path = tmp_path / "best.pt"
    torch.save(state, path)
    model = dr.load(path, device="cpu")
    _, ids, mask = batch()
    expected = reference(ids, attention_mask=mask).last_hidden_state
    assert oracles.largest(model.text(ids, mask), expected) < 1e-5


def test_a_folder_of_our_own(tmp_path) -> None:
    model = DualEncoder(TINY)
    save(model, tmp_path / "clip")
    again = dr.load(tmp_path / "clip", device="cpu")
    assert again.config == TINY
    state = again.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert from_dict(DualEncoderConfig, to_dict(TINY)) == TINY


def test_every_kind_that_comes_alone_is_one_that_inspect_tells() -> None:
    from darkroom.weights.inspect.rules import RULES

    told = {rule.kind for rule in RULES} | {f"{rule.kind} ({rule.layout})" for rule in RULES}
    assert ALONE.keys() <= told
