import pytest
import torch

from darkroom.nn.transformer import Block


@pytest.mark.parametrize("quick_gelu", [True, False])
@torch.no_grad()
def test_the_first_rows_alone_are_those_of_all(quick_gelu):
    torch.manual_seed(0)
    block, x = Block(16, 2, 32, quick_gelu=quick_gelu), torch.randn(3, 7, 16)
    assert torch.allclose(block(x)[:, :2], block(x, 2), atol=1e-5)


def test_causal_tokens_do_not_look_ahead():
    torch.manual_seed(0)
    x = torch.randn(1, 5, 16)
    changed = x.clone()
    changed[:, 3:] = torch.randn(1, 2, 16)
    for causal in (True, False):
        block = Block(16, 2, 32, quick_gelu=True, causal=causal)
        same = torch.allclose(block(x)[:, :3], block(changed)[:, :3], atol=1e-5)
        assert same is causal


def test_quick_gelu_is_the_same_with_and_without_gradients():
    block, x = Block(8, 1, 16, quick_gelu=True), torch.randn(2, 3, 8)
    recorded = block(x)
    recorded.sum().backward()
    with torch.no_grad():
        assert torch.equal(block(x), recorded)
