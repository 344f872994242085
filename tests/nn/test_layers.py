"""Layers that work in place must not change what autograd or the caller still needs."""

import torch
import torch.nn.functional as F
from torch import Tensor

from darkroom.nn.attention import Attention, GatedFeedForward, PixelAttention
from darkroom.nn.embedding import sinusoid
from darkroom.nn.normalization import NormSilu
from darkroom.nn.residual import ResidualBlock


def written_out(block: ResidualBlock, x: Tensor, embed: Tensor | None) -> Tensor:
    def norm(layer: NormSilu, h: Tensor) -> Tensor:
        return F.silu(F.group_norm(h, layer.num_groups, layer.weight, layer.bias, layer.eps))

    h = block.conv1(norm(block.norm1, x))
    if embed is not None and block.embed is not None:
        h = h + block.embed(F.silu(embed))[:, :, None, None]
    return block.skip(x) + block.conv2(norm(block.norm2, h))


def test_residual_block_and_its_gradients() -> None:
    torch.manual_seed(0)
    for outputs, width in ((8, None), (12, None), (8, 6), (12, 6)):
        block = ResidualBlock(8, outputs, width, groups=4).double()
        x = torch.randn(2, 8, 5, 5, dtype=torch.float64, requires_grad=True)
        embed = None if width is None else torch.randn(2, 6, dtype=torch.float64)
        leaves = [x, *block.parameters()]
        weights = torch.randn(2, outputs, 5, 5, dtype=torch.float64)
        expected = written_out(block, x, embed)
        wanted = torch.autograd.grad((expected * weights).sum(), leaves)
        actual = block(x, embed)
        found = torch.autograd.grad((actual * weights).sum(), leaves)
        assert torch.allclose(actual, expected, atol=1e-12)
        assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(found, wanted, strict=True))
        before = x.detach().clone()
        with torch.no_grad():
            assert torch.allclose(block(x, embed), expected, atol=1e-12)
        assert torch.equal(x.detach(), before)


def test_gated_feed_forward_and_its_gradients() -> None:
    torch.manual_seed(0)
    layer = GatedFeedForward(6).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    value, gate = layer.up(x).chunk(2, dim=-1)
    expected = layer.down(value * F.gelu(gate))
    leaves = [x, *layer.parameters()]
    wanted = torch.autograd.grad(expected.sin().sum(), leaves)
    found = torch.autograd.grad(layer(x).sin().sum(), leaves)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(found, wanted, strict=True))
    with torch.no_grad():
        assert torch.allclose(layer(x), expected, atol=1e-12)


def test_attention_is_that_of_pytorch() -> None:
    torch.manual_seed(0)
    ours = Attention(12, heads=3, bias=True)
    theirs = torch.nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([m.weight for m in (ours.q, ours.k, ours.v)]))
        theirs.in_proj_bias.copy_(torch.cat([m.bias for m in (ours.q, ours.k, ours.v)]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
        x, context = torch.randn(2, 5, 12), torch.randn(2, 7, 12)
        assert torch.allclose(ours(x, context), theirs(x, context, context)[0], atol=1e-5)
        future = torch.ones(5, 5, dtype=torch.bool).triu(1)
        assert torch.allclose(ours(x, causal=True), theirs(x, x, x, attn_mask=future)[0], atol=1e-5)


def test_pixel_attention_sees_every_pixel_and_keeps_the_shape() -> None:
    torch.manual_seed(0)
    layer = PixelAttention(8, groups=2, heads=2)
    x = torch.randn(1, 8, 3, 5)
    y = layer(x)
    assert y.shape == x.shape
    x2 = x.clone()
    x2[..., 0, 0] += 1
    assert bool(((layer(x2) - y).abs().amax(dim=1) > 1e-6).all())
    turned = layer(x.flip(3))
    assert torch.allclose(turned, y.flip(3), atol=1e-5)  # no pixel has a place


def test_sinusoid_in_closed_form() -> None:
    t = torch.tensor([0.0, 1.0, 500.5])
    features = sinusoid(t, 8)
    for k in range(4):
        frequency = 10_000.0 ** (-k / 4)
        assert torch.allclose(features[:, k], (t * frequency).cos(), atol=1e-5)
        assert torch.allclose(features[:, 4 + k], (t * frequency).sin(), atol=1e-5)
    flipped = sinusoid(t, 8, shift=1, sines_first=True)
    assert torch.allclose(flipped[:, 3], (t / 10_000.0).sin(), atol=1e-6)
    assert torch.allclose(flipped[:, 4], t.cos(), atol=1e-5)
    assert sinusoid(t.half(), 8).dtype == torch.float32
