"""ControlNet: what a new one does, and what it takes from a U-Net."""

from dataclasses import replace

import pytest
import torch

from darkroom.models.control.controlnet import ControlNet, ControlNetConfig
from darkroom.models.unet import SD15, UNet, UNetConfig

TINY = UNetConfig(channels=(8, 16), heads=(2, 2), depth=(1, 1), text_channels=6, groups=4)


def inputs(config=TINY, batch=2, size=(6, 4)):
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(batch, config.out_channels, *size, generator=draw)
    text = torch.randn(batch, 3, config.text_channels, generator=draw)
    return x, torch.tensor([3.0] * batch), text


def test_a_new_one_changes_nothing_and_learns():
    unet = UNet(TINY)
    net = ControlNet.from_unet(unet)
    x, t, text = inputs()
    residuals = net(x, t, text, torch.rand(1, 3, 48, 32))
    assert all(not r.any() for r in residuals)
    torch.testing.assert_close(unet(x, t, text, residuals=residuals), unet(x, t, text))
    unet(x, t, text, residuals=residuals).sum().backward()
    grads = [p.grad for name, p in net.named_parameters() if name.startswith("zero.")]
    assert all(grad is not None and bool(grad.any()) for grad in grads)
    assert net.zero_middle.weight.grad is not None


def test_it_takes_a_copy():
    unet = UNet(TINY)
    net = ControlNet.from_unet(unet)
    ours = dict(net.named_parameters())
    copied = {name: p for name, p in unet.named_parameters() if name in ours}
    assert len(ours) - len(copied) == 16 + 2 * (len(net.zero) + 1)  # the hint's, the zero ones
    assert all(torch.equal(ours[name], p) and ours[name] is not p for name, p in copied.items())
    assert (
        ours["down.0.residual.conv1.weight"].data_ptr()
        != copied["down.0.residual.conv1.weight"].data_ptr()
    )


def test_channels_beside_the_latents_are_left_out():
    unet = UNet(replace(TINY, in_channels=9))
    net = ControlNet.from_unet(unet)
    assert net.config.unet.in_channels == 4
    assert torch.equal(net.input.weight, unet.input.weight[:, :4])


@pytest.mark.parametrize("factor", [1, 4, 8, 16])
def test_the_hint_encoder_follows_the_autoencoder(factor):
    net = ControlNet.from_unet(UNet(TINY), factor=factor)
    assert net.config.factor == factor
    x, t, text = inputs()
    residuals = net(x, t, text, torch.rand(1, 3, 6 * factor, 4 * factor))
    assert [tuple(r.shape) for r in residuals] == [
        (2, 8, 6, 4), (2, 8, 6, 4), (2, 8, 6, 4), (2, 8, 3, 2),
        (2, 16, 3, 2), (2, 16, 3, 2), (2, 16, 3, 2),
    ]  # fmt: skip


def test_a_factor_that_halving_does_not_reach():
    with pytest.raises(ValueError, match="factor 6: expected 1, 2, 4"):
        ControlNet.from_unet(UNet(TINY), factor=6)


def test_size_of_stable_diffusion_s():
    with torch.device("meta"):
        net = ControlNet(ControlNetConfig(unet=SD15))
    assert sum(p.numel() for p in net.parameters()) == 361_279_120
    assert len(net.state_dict()) == 340


def test_features_enter_the_u_net_between_its_stages():
    """An adapter's: into what goes on, and so into the skip too; None and zero change nothing."""
    unet = UNet(TINY).eval()
    x, t, text = inputs()
    plain = unet(x, t, text)
    none = [None] * (len(unet.down) + 1)
    torch.testing.assert_close(unet(x, t, text, features=none), plain)
    some = [*none[:2], torch.zeros(2, 8, 3, 2), *none[3:]]
    torch.testing.assert_close(unet(x, t, text, features=some), plain)
    some[2] = torch.ones(2, 8, 3, 2)
    assert not torch.allclose(unet(x, t, text, features=some), plain)
