"""Against OpenAI's CLIP and open_clip (vectors made elsewhere), and against transformers."""

import pytest
import torch

from darkroom.models.clip import presets, view
from darkroom.models.clip.modified_resnet import AttentionResNet
from darkroom.models.clip.network import Clip, ClipConfig
from darkroom.models.clip.vision_transformer import VisionConfig, VisionTransformer
from darkroom.models.clip_text import TextConfig
from darkroom.weights.assemble import on_meta
from darkroom.weights.layouts.clip.names import HUGGINGFACE, OPENAI_LAYOUT
from vectors.whole_clip import IDS, SMALL, digest, images, random_state
from weights.layouts.clips import CONFIGS, TEXT, VECTORS, drawn


@pytest.mark.parametrize("key", VECTORS["small"])
@torch.no_grad()
def test_small_ones_put_out_what_the_originals_do(key):
    name = key.split()[0]
    model = drawn(name)
    found = VECTORS["small"][key]
    image = model.image(images(SMALL[name]["vision_cfg"]["image_size"]))
    text = model.encode_text(torch.tensor(IDS))
    assert torch.allclose(image, torch.tensor(found["image"]), atol=2e-5)
    assert torch.allclose(text, torch.tensor(found["text"]), atol=2e-5)
    assert float(model.scale.detach()) == pytest.approx(2.718281828**2.5)


@pytest.mark.parametrize("name", [*presets.OPENAI, *presets.OPEN_CLIP])
def test_full_size_names_and_shapes_are_the_originals(name):
    config = {**presets.OPENAI, **presets.OPEN_CLIP}[name]
    with on_meta():
        state = Clip(config).state_dict()
    theirs = {key: t.shape for key, t in OPENAI_LAYOUT.revert(state, config).items()}
    assert digest(theirs) == VECTORS["names"][name]
    if name == "ViT-B/32":
        assert len(theirs) == 302
        assert sum(t.numel() for t in state.values()) == 151_277_313


@pytest.mark.parametrize("name", ["vit", "gelu"])
@torch.no_grad()
def test_equal_to_transformers(name):
    from transformers import CLIPConfig, CLIPModel

    from darkroom.weights.layouts.clip.configs import clip_json

    config = CONFIGS[name]
    theirs = CLIPModel(CLIPConfig.from_dict(clip_json(config))).eval()
    state = theirs.state_dict()
    shapes = {key: tuple(tensor.shape) for key, tensor in state.items()}
    theirs.load_state_dict(random_state(shapes))
    ours = Clip(config)
    ours.load_state_dict(HUGGINGFACE.convert(theirs.state_dict(), config))
    ours.eval()
    pixels, ids = images(config.view.size), torch.tensor(IDS)
    out = theirs(input_ids=ids, pixel_values=pixels)
    image, text = ours.image(pixels), ours.encode_text(ids)
    image, text = (x / x.norm(dim=-1, keepdim=True) for x in (image, text))
    assert torch.allclose(image, out.image_embeds, atol=1e-5)
    assert torch.allclose(text, out.text_embeds, atol=1e-5)
    logits = ours.scale * image @ text.T
    assert torch.allclose(logits, out.logits_per_image, atol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_vit_b_32_equals_transformers():
    from transformers import CLIPConfig, CLIPModel

    from darkroom.weights.layouts.clip.configs import clip_json

    config = presets.OPENAI["ViT-B/32"]
    torch.manual_seed(3)
    theirs = CLIPModel(CLIPConfig.from_dict(clip_json(config))).eval()
    ours = Clip(config).eval()
    ours.load_state_dict(HUGGINGFACE.convert(theirs.state_dict(), config))
    pixels, ids = images(224), torch.randint(0, 49_406, (2, 77))
    ids[:, 0], ids[0, 9:], ids[1, 76] = 49_406, 49_407, 49_407
    out = theirs(input_ids=ids, pixel_values=pixels)
    for mine, other in (
        (ours.image(pixels), out.image_embeds),
        (ours.encode_text(ids), out.text_embeds),
    ):
        assert torch.allclose(mine / mine.norm(dim=-1, keepdim=True), other, atol=1e-5)


@pytest.mark.parametrize("name", ["ViT-B/32", "ViT-L/14@336px", "ViT-bigG-14"])
def test_full_size_names_and_shapes_are_transformers(name):
    from transformers import CLIPConfig, CLIPModel

    from darkroom.weights.layouts.clip.configs import clip_json

    config = {**presets.OPENAI, **presets.OPEN_CLIP}[name]
    with torch.device("meta"):
        theirs = CLIPModel(CLIPConfig.from_dict(clip_json(config))).state_dict()
    with on_meta():
        state = Clip(config).state_dict()
    ours = {key: t.shape for key, t in HUGGINGFACE.revert(state, config).items()}
    assert ours == {key: t.shape for key, t in theirs.items()}


@torch.no_grad()
def test_pixels_in_0_to_1_are_normalised():
    model = drawn("resnet")
    pixels = torch.rand(2, 3, 64, 64)
    mean, deviation = torch.tensor(view.View().mean), torch.tensor(view.View().deviation)
    normalised = (pixels - mean[:, None, None]) / deviation[:, None, None]
    assert torch.allclose(model.encode_image(pixels), model.image(normalised), atol=1e-5)
    image, text = model(pixels, torch.tensor(IDS))
    assert image.shape == text.shape == (2, 24)


@torch.no_grad()
def test_what_follows_the_end_is_not_looked_at():
    model = drawn("vit")
    ids = torch.tensor(IDS)
    other = torch.where(torch.arange(8) > 5, torch.tensor(7), ids)
    assert torch.allclose(model.encode_text(ids[:1]), model.encode_text(other[:1]), atol=1e-5)
    assert torch.allclose(model.encode_text(ids[:1]), model.encode_text(ids[:1, :6]), atol=1e-5)


@torch.no_grad()
def test_ends_alone_are_what_they_are_beside_the_others():
    model = drawn("vit").text
    ids = torch.tensor(IDS)
    whole, ends = model(ids), model(ids, ends_alone=True)
    for name in ("pooled", "projected"):
        assert torch.allclose(getattr(ends, name), getattr(whole, name), atol=1e-5)
    assert ends.last.shape[1] == 1
    assert len(ends.hidden) == len(whole.hidden) - 1
    assert torch.equal(ends.hidden[-1], whole.hidden[-2])


def test_both_towers_learn():
    model = drawn("vit")
    image, text = model.requires_grad_().train()(torch.rand(2, 3, 32, 32), torch.tensor(IDS))
    (model.scale * image @ text.T).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_towers_alone():
    config = VisionConfig(size=32, patch=8, channels=64, layers=1, heads=1, projection=0)
    tower = VisionTransformer(config)
    assert tower.eval()(torch.rand(1, 3, 32, 32)).shape == (1, 64)
    assert AttentionResNet(CONFIGS["resnet"].image).config.features == 256


def test_towers_of_two_widths_do_not_meet():
    image = CONFIGS["vit"].image
    with pytest.raises(ValueError, match="expected as many"):
        ClipConfig(image=image, text=TextConfig(projection=512))
    with pytest.raises(ValueError, match="view of 224"):
        ClipConfig(image=image, text=TEXT)
