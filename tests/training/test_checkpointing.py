"""Checkpointed blocks: the same gradients from fewer kept tensors."""

import copy

import pytest
import torch
from torch import nn

from darkroom.models.clip_text import ClipTextModel, TextConfig
from darkroom.models.unconditional_unet import UnconditionalUNet, UnconditionalUNetConfig
from darkroom.training.checkpointing import checkpoint_blocks
from darkroom.training.fit import FitOptions, Training, fit


class Block(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.inner = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(0.2)

    def forward(self, x):
        return x + self.dropout(self.inner(x))


class Stack(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(6))

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def kept(function):
    """Bytes that the forward pass keeps for the backward pass, each memory once."""
    seen = {}

    def pack(tensor):
        seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = function()
    return output, sum(seen.values())


def networks():
    torch.manual_seed(0)
    yield "stack", Stack(), (torch.randn(64, 16),), 6
    text = TextConfig(vocabulary=50, positions=16, channels=32, layers=4, heads=2, hidden=128)
    yield "text", ClipTextModel(text), (torch.randint(50, (4, 16)),), 4
    config = UnconditionalUNetConfig(channels=(32, 32), attention=(False, True))
    unet = UnconditionalUNet(config)
    x = torch.randn(2, config.in_channels, 16, 16)
    yield "unet", unet, (x, torch.tensor([3, 500])), 10


@pytest.mark.parametrize("which", range(3), ids=["stack", "text", "unet"])
def test_equal_gradients_from_less_memory(which):
    _, plain, inputs, least = list(networks())[which]
    spared = copy.deepcopy(plain)
    assert len(checkpoint_blocks(spared)) >= least
    gradients, sizes = [], []
    for model in (plain, spared):
        torch.manual_seed(3)  # for dropout
        output, size = kept(lambda model=model: model(*inputs))
        output = getattr(output, "last", output)
        output.square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
        sizes.append(size - sum(p.numel() * 4 for p in model.parameters()))
    for a, b in zip(*gradients, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert sizes[1] < 0.6 * sizes[0], sizes


def test_it_is_done_once_and_copies_stand_alone():
    model = Stack()
    assert checkpoint_blocks(model) == checkpoint_blocks(model) == [f"blocks.{i}" for i in range(6)]
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    x = torch.randn(2, 16)
    assert torch.equal(model.eval()(x), x)
    assert not torch.equal(twin.eval()(x), x)


def test_batch_normalisation_is_left_alone():
    model = nn.Sequential(*(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for _ in range(3)))
    assert checkpoint_blocks(model) == []


def test_the_trainer_s_option_changes_no_loss():
    losses = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = Stack()
        options = FitOptions(steps=5, batch=8, device="cpu", checkpointing=checkpointing)

        def loss(draw, model=model):
            x = draw.share(torch.randn(8, 16, generator=draw.generator))
            return (model(x) - 1).square().mean()

        losses.append([step.loss for step in fit(Training(model, options), loss)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
