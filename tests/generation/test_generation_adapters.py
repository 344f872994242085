"""Textual inversions and hypernetworks in runs, by name, by tag and as features."""

from dataclasses import replace

import pytest
import torch

from darkroom.adapters.hypernetwork import Attached, HypernetworkConfig
from darkroom.adapters.hypernetwork import Hypernetwork as Networks
from darkroom.errors import ConfigError, ModelMismatchError, ModelNotFoundError, PromptError
from darkroom.generation.adapters import with_adapters
from darkroom.generation.adapters.embedding import Embedding
from darkroom.generation.adapters.hypernetwork import Hypernetwork
from darkroom.generation.generate import develop, generate
from darkroom.generation.guidance import Guidance
from darkroom.generation.metadata import read_params
from darkroom.generation.redraw import redraw
from darkroom.weights.adapters.saving import save_embedding, save_hypernetwork
from generation import small

WIDTH = small.UNET.text_channels
CONFIG = HypernetworkConfig(activation_func="relu", activate_output=False)


def networks(seed: int) -> Networks:
    g = torch.Generator().manual_seed(seed)

    def state():
        shapes = {"0.weight": (2 * WIDTH, WIDTH), "0.bias": (2 * WIDTH,),
                  "2.weight": (WIDTH, 2 * WIDTH), "2.bias": (WIDTH,)}  # fmt: skip
        return {f"linear.{k}": torch.randn(s, generator=g) for k, s in shapes.items()}

    return Networks({WIDTH: (state(), state())}, CONFIG)


@pytest.fixture(scope="module")
def model():
    return small.model(family="sd1")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DARKROOM_MODELS", raising=False)
    folder = tmp_path / "home/models"
    folder.mkdir(parents=True)
    torch.manual_seed(3)
    save_embedding(folder / "foxy.pt", torch.randn(2, WIDTH))
    save_embedding(folder / "ugly.safetensors", torch.randn(1, WIDTH))
    save_hypernetwork(folder / "style.pt", networks(1))
    return folder


def last(model, prompt, *features):
    *_, step = generate(model, prompt, *features, steps=2, seeds=[5])
    return step.x


def test_words_of_both_prompts_are_found(model, home, tmp_path):
    plain = last(model, "a fax in snow", Guidance(4.0, "blurry"))
    found = last(model, "a Foxy in snow", Guidance(4.0, "ugly, blurry"))
    features = Embedding(home / "foxy.pt"), Embedding(home / "ugly.safetensors")
    vectors = Embedding("foxy").file.vectors
    elsewhere = Embedding(vectors[0], "thing"), Embedding("ugly", "word")
    given = last(model, "a foxy in snow", Guidance(4.0, "ugly, blurry"), *features)
    other = last(model, "a thing in snow", Guidance(4.0, "word, blurry"), *elsewhere)
    assert torch.equal(found, given)
    assert torch.equal(found, other)
    assert not torch.allclose(found, plain)
    assert model.text_encoder.embeddings == {}
    assert last(model, "a foxy", Guidance(1.0)).isfinite().all()
    assert with_adapters(model, "nothing special", ()) == ()


def test_a_picture_names_what_it_used_and_is_drawn_again(model, home, tmp_path):
    prompt = "a foxy <hypernet:style:0.3>"
    unused = Embedding(torch.ones(1, WIDTH), "never")
    [picture] = develop(model, prompt, Guidance(3.0, "ugly"), unused, steps=2)
    assert [e.name for e in picture.params.embeddings] == ["foxy", "ugly"]
    assert "no prompt has its word, 'never'" in picture.params.notes[0]
    [used] = picture.params.hypernetworks
    assert (used.name, used.weight, used.tagged, len(used.sha256)) == ("style", 0.3, True, 64)
    path = picture.save(tmp_path / "x.png")
    assert read_params(path) == picture.params
    assert b"TI hashes: " in path.read_bytes()
    assert redraw(model, path).image.tobytes() == picture.image.tobytes()

    kept = (home / "foxy.pt").read_bytes()
    save_embedding(home / "foxy.pt", torch.zeros(1, WIDTH))
    with pytest.raises(ModelMismatchError, match="textual inversion 'foxy' of SHA-256 .*put that"):
        redraw(model, path)
    assert redraw(model, path, exact=False).image.tobytes() != picture.image.tobytes()
    (home / "foxy.pt").unlink()
    with pytest.raises(ModelNotFoundError, match="drawn with the textual inversion 'foxy'"):
        redraw(model, path)
    (home / "foxy.pt").write_bytes(kept)
    save_hypernetwork(home / "style.pt", networks(2))
    with pytest.raises(ModelMismatchError, match="hypernetwork 'style' of SHA-256"):
        redraw(model, path)

    [plain] = develop(model, "a new word", steps=2)
    save_embedding(home / "new.pt", torch.ones(1, WIDTH))
    with pytest.raises(ModelMismatchError, match="'new' is a textual inversion now"):
        redraw(model, plain.params)


def test_hypernetworks_by_tag_and_as_features(model, home):
    plain = last(model, "a cat")
    tagged = last(model, "a cat<hypernet:style:0.5>")
    assert torch.equal(tagged, last(model, "a cat", Hypernetwork("style", 0.5)))
    with Attached(model.unet, networks(1), 0.5):
        assert torch.equal(tagged, last(model, "a cat"))
    assert not torch.allclose(tagged, plain)
    assert torch.equal(last(model, "a cat", Hypernetwork("style", 0.0)), plain)
    both = last(model, "a cat<hypernet:style:0.5>", Hypernetwork(networks(2), 0.2))
    assert not torch.allclose(both, tagged)
    assert torch.equal(last(model, "a cat"), plain)
    [picture] = develop(model, "a cat", Hypernetwork("style", 0.4), steps=2)
    assert redraw(model, picture.params).image.tobytes() == picture.image.tobytes()
    [picture] = develop(model, "a cat", Hypernetwork(networks(2)), steps=2)
    with pytest.raises(ConfigError, match="given as networks"):
        redraw(model, picture.params)


def test_what_cannot_be_is_refused(model, home):
    with pytest.raises(PromptError, match="asks for '<hypernet:stile:1>': .* did you mean 'style'"):
        generate(model, "a <hypernet:stile:1>")
    with pytest.raises(PromptError, match="into the prompt"):
        generate(model, "a", Guidance(3.0, negative="<hypernet:style:1>"))
    with pytest.raises(ConfigError, match="finite"):
        Hypernetwork("style", float("inf"))
    with pytest.raises(ConfigError, match="name=... is missing"):
        Embedding(torch.ones(1, WIDTH))
    with pytest.raises(ModelMismatchError, match="wide: this is a textual inversion for SD 1.x"):
        generate(model, "a wide", Embedding(torch.ones(1, 768), "wide"))
    save_embedding(home / "wide.pt", torch.ones(1, 768))
    generation = generate(model, "a wide fox", steps=2)  # a word that happens to be a file's name
    assert "'wide' is read as words: wide: this is a textual" in generation.params.notes[0]
    assert generation.params.embeddings == ()
    with pytest.raises(ModelMismatchError, match="style.pt: .* contexts of 24 channels finds none"):
        narrow = replace(small.UNET, text_channels=16)
        generate(small.model(unet=narrow), "a", Hypernetwork("style"))
