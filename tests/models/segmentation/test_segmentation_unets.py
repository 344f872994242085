"""Shapes at odd sizes, parameters by hand, both ways to match a skip, what freezing means."""

import pytest
import torch
import torch.nn.functional as F

from darkroom.models.resnet import RESNET50, RESNET101, RESNET152, ResNetConfig
from darkroom.models.segmentation.unet import SegmentationUNet, SegmentationUNetConfig, matched
from darkroom.models.segmentation.unet_resnet import (
    SegmentationUNetResNet,
    SegmentationUNetResNetConfig,
)

UNET = SegmentationUNetConfig(classes=5, channels=(8, 16, 16, 32))
RESNET = SegmentationUNetResNetConfig(
    classes=5, encoder=ResNetConfig(channels=4, blocks=(1, 1, 2, 1)), channels=(24, 16, 12, 8, 6, 4)
)


def on_meta(model, config):
    with torch.device("meta"):
        return model(config)


def small(config=UNET, seed=0):
    torch.manual_seed(seed)
    kind = (
        SegmentationUNet if isinstance(config, SegmentationUNetConfig) else SegmentationUNetResNet
    )
    return kind(config)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def test_parameters_of_the_post_s_network_by_hand():
    """3x3 convolutions without bias and two numbers a channel for each normalisation."""

    def pair(into, out):
        inner = out // 2
        return 9 * into * inner + 2 * inner + 9 * inner * out + 2 * out

    def up(into):
        half = into // 2
        return into * half * 4 + half + pair(into, half)

    by_hand = pair(3, 64) + pair(64, 128) + pair(128, 256) + pair(256, 512) + pair(512, 1024)
    by_hand += pair(1024, 1024) + up(1024) + up(512) + up(256) + up(128) + 64 * 21 + 21
    assert by_hand == 26_356_469
    assert count(on_meta(SegmentationUNet, SegmentationUNetConfig())) == by_hand


def test_parameters_of_the_post_s_resnet_network_by_hand():
    decoder = 2048 * 192 * 9 + 192 + 192 * 128 * 16
    decoder += (128 + 1024) * 128 * 9 + 128 + 128 * 96 * 16
    decoder += (96 + 512) * 96 * 9 + 96 + 96 * 64 * 16
    decoder += (64 + 256) * 64 * 9 + 64 + 64 * 48 * 16
    decoder += 48 * 48 * 9 + 48 + 48 * 32 * 16 + 32 * 32 * 9 + 32 + 32 * 21
    model = on_meta(SegmentationUNetResNet, SegmentationUNetResNetConfig())
    assert sum(p.numel() for p in model.backbone_parameters()) == 23_508_032  # timm's, without fc
    assert sum(p.numel() for p in model.decoder_parameters()) == decoder
    assert count(model) == 23_508_032 + decoder


@pytest.mark.parametrize("encoder", [RESNET50, RESNET101, RESNET152])
def test_every_deep_resnet_fits(encoder):
    model = on_meta(SegmentationUNetResNet, SegmentationUNetResNetConfig(encoder=encoder))
    with torch.device("meta"):
        assert model(torch.zeros(2, 3, 90, 121)).shape == (2, 21, 90, 121)


@pytest.mark.parametrize("size", [(180, 240), (48, 64), (45, 37), (33, 34)])
@pytest.mark.parametrize("match", ["interpolate", "pad"])
def test_logits_are_of_the_input_s_size(size, match):
    model = small(SegmentationUNetConfig(classes=5, channels=(4, 4, 8, 8, 8), match=match)).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, *size)).shape == (1, 5, *size)
        assert small(RESNET).eval()(torch.randn(1, 3, *size)).shape == (1, 5, *size)


def test_pooling_rounds_up():
    """180 -> 90 -> 45 -> 23 -> 12, where rounding down gives 11."""
    model = small(SegmentationUNetConfig(classes=2, channels=(4, 4, 4, 4, 4))).eval()
    seen = []
    model.middle.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    with torch.no_grad():
        model(torch.randn(1, 3, 180, 240))
    assert seen == [(1, 4, 12, 15)]


def test_interpolating_and_padding_agree_where_nothing_is_odd():
    interpolated = small()
    padded = SegmentationUNet(
        SegmentationUNetConfig(classes=5, channels=UNET.channels, match="pad")
    )
    padded.load_state_dict(interpolated.state_dict())
    even, odd = torch.randn(2, 3, 32, 48), torch.randn(2, 3, 33, 48)
    with torch.no_grad():
        assert torch.equal(interpolated.eval()(even), padded.eval()(even))
        assert not torch.equal(interpolated(odd), padded(odd))


def test_matching_cuts_and_pads():
    x = torch.arange(12.0).view(1, 1, 3, 4)
    like = torch.zeros(1, 1, 2, 7)
    assert torch.equal(matched(x, like, "pad"), F.pad(x[:, :, 1:], (1, 2)))
    corners = matched(x, torch.zeros(1, 1, 5, 7))[0, 0]
    assert corners[0, 0] == 0
    assert corners[-1, -1] == 11  # aligned corners keep the corner pixels
    assert torch.allclose(corners[2], torch.linspace(4, 7, 7))


def test_the_unet_by_the_paper():
    """Restated with functions alone: a level's skip is what the level before it pooled."""
    model = small().eval()
    p = model.state_dict()

    def pair(x, name):
        for conv, norm in ((0, 1), (3, 4)):
            x = F.conv2d(x, p[f"{name}.{conv}.weight"], padding=1)
            n = [p[f"{name}.{norm}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
            x = F.relu(F.batch_norm(x, *n))
        return x

    x = torch.randn(2, 3, 21, 30)
    levels = [pair(x, "input")]
    for i in range(3):
        levels.append(F.max_pool2d(pair(levels[-1], f"down.{i}"), 2, ceil_mode=True))
    h = pair(levels.pop(), "middle")
    for i in range(3):
        skip = levels.pop()
        h = F.conv_transpose2d(h, p[f"up.{i}.resize.weight"], p[f"up.{i}.resize.bias"], stride=2)
        h = F.interpolate(h, skip.shape[2:], mode="bilinear", align_corners=True)
        h = pair(torch.cat((skip, h), 1), f"up.{i}.pair")
    expected = F.conv2d(h, p["output.weight"], p["output.bias"])
    with torch.no_grad():
        assert torch.allclose(model(x), expected, atol=1e-5)


def test_the_post_s_decoder_is_linear():
    """Without ``relu`` the network is an affine function of the encoder's features."""
    model = small(RESNET).eval()
    x = torch.randn(1, 3, 40, 56)
    features = [f.detach() for f in model.encoder.stages(x)]
    answers = []
    with torch.no_grad():
        for scale in (0.0, 1.0, 2.0):
            model.encoder.stages = lambda _, scale=scale: [f * scale for f in features]
            answers.append(model(x))
    assert torch.allclose(answers[2] - answers[1], answers[1] - answers[0], atol=1e-4)


@pytest.mark.parametrize("config", [UNET, RESNET])
def test_frozen_normalisation_keeps_its_statistics(config):
    model, x = small(config), torch.randn(2, 3, 40, 56)
    before = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    model.freeze_bn()
    model.train()
    model(x)
    assert all(torch.equal(model.state_dict()[k], v) for k, v in before.items())
    assert model.training
    free = small(config)
    free.train()(x)
    assert any(not torch.equal(free.state_dict()[k], v) for k, v in before.items())


def test_a_frozen_backbone_stays_as_it_is():
    model = small(RESNET)
    before = {k: v.clone() for k, v in model.encoder.state_dict().items()}
    model.freeze_backbone()
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.1)
    model(torch.randn(2, 3, 40, 56)).square().mean().backward()
    optimizer.step()
    assert all(torch.equal(model.encoder.state_dict()[k], v) for k, v in before.items())
    assert not any(p.requires_grad for p in model.backbone_parameters())
    assert all(p.requires_grad for p in model.decoder_parameters())


def test_the_two_groups_are_everything():
    model = small(RESNET)
    both = [*model.backbone_parameters(), *model.decoder_parameters()]
    assert {id(p) for p in both} == {id(p) for p in model.parameters()}
    assert len(both) == len(list(model.parameters()))


def test_the_decoder_starts_as_he_et_al_say():
    model = small(SegmentationUNetResNetConfig(encoder=RESNET.encoder))
    weight = model.up[1].conv.weight  # (128, 128 + 64, 3, 3)
    assert weight.std().item() == pytest.approx((2 / weight[0].numel()) ** 0.5, rel=0.02)
    assert not model.up[1].conv.bias.any()


@pytest.mark.parametrize(
    ("model", "config", "message"),
    [
        (SegmentationUNet, SegmentationUNetConfig(channels=(8, 15)), "15 of level 1"),
        (SegmentationUNet, SegmentationUNetConfig(channels=(7, 14)), "7 of level 0"),
        (SegmentationUNetResNet, SegmentationUNetResNetConfig(channels=(8, 8)), "halves 5 times"),
        (
            SegmentationUNetResNet,
            SegmentationUNetResNetConfig(encoder=ResNetConfig(classes=9)),
            "no classifier",
        ),
    ],
)
def test_sizes_that_do_not_fit(model, config, message):
    with pytest.raises(ValueError, match=message):
        on_meta(model, config)
