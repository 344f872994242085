"""Textual inversions in files of every public form, and by the names that prompts use."""

import base64
import json
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from safetensors.torch import save_file

from darkroom.errors import CheckpointError, ModelMismatchError, ModelNotFoundError
from darkroom.weights.adapters.embeddings import (
    fit_embedding,
    is_mentioned,
    mentioned,
    open_embedding,
)
from darkroom.weights.adapters.finding import find, sha256_of
from darkroom.weights.adapters.hypernetworks import check_hypernetwork
from darkroom.weights.adapters.saving import save_embedding

ONE, TWO, WIDE = torch.rand(768), torch.rand(2, 768), torch.rand(2, 1280)


def a1111(vectors: torch.Tensor) -> dict:
    return {
        "string_to_token": {"*": 265}, "string_to_param": {"*": vectors}, "name": "x", "step": 5,
        "sd_checkpoint": None, "sd_checkpoint_name": None,
    }  # fmt: skip


def as_json(vectors: torch.Tensor) -> bytes:
    """As A1111 writes one into a picture."""
    data = {**a1111(vectors), "string_to_param": {"*": {"TORCHTENSOR": vectors.tolist()}}}
    return json.dumps(data).encode()


def png(path, vectors) -> None:
    info = PngInfo()
    info.add_text("sd-ti-embedding", base64.b64encode(as_json(vectors)).decode())
    Image.new("RGB", (32, 32), (90, 20, 30)).save(path, pnginfo=info)


def edges(path, vectors) -> None:
    """The published form: nibbles in blocks beside the picture, under a fixed sequence, a decor in
    the high bits, and a black column on either side."""
    height, data = 64, np.frombuffer(zlib.compress(as_json(vectors), 9), np.uint8)
    size = -(-len(data) // (height * 3)) * height * 3
    seed, mask = 0, []
    for _ in range(size):
        seed = (1664525 * seed + 1013904223) % 2**32
        mask.append(seed % 255 & 15)
    mask = np.array(mask, np.uint8).reshape(height, -1, 3)
    decor = np.random.default_rng(1).integers(1, 16, (height, mask.shape[1], 1), np.uint8) << 4
    blocks = [(np.resize(part, mask.shape) ^ mask) | decor for part in (data & 15, data >> 4)]
    picture = np.full((height, 48, 3), 201, np.uint8)
    black = np.zeros((height, 1, 3), np.uint8)
    Image.fromarray(np.hstack([blocks[0], black, picture, black, blocks[1]])).save(path)


def write(path, content) -> None:
    torch.save(content, path)


class OldModule(torch.nn.ParameterDict):
    """Pickled as the first programs did: an object with ``_parameters`` in its state."""

    def __reduce_ex__(self, protocol):
        made = torch.nn.ParameterDict.__new__
        state = {"_parameters": {"*": torch.nn.Parameter(TWO)}, "_buffers": {}, "_modules": {}}
        return made, (torch.nn.ParameterDict,), state


FORMS = {
    "style.pt": (lambda p: write(p, a1111(TWO)), ("style",), [TWO]),
    "parameter.pt": (lambda p: write(p, a1111(torch.nn.Parameter(TWO))), ("parameter",), [TWO]),
    "old.pt": (lambda p: write(p, {"string_to_param": OldModule()}), ("old",), [TWO]),
    "emb.safetensors": (lambda p: save_file({"emb_params": TWO}, p), ("emb",), [TWO]),
    "xl.safetensors": (
        lambda p: save_file({"clip_g": WIDE, "clip_l": TWO}, p), ("xl",), [TWO, WIDE],
    ),
    "learned_embeds.bin": (
        lambda p: write(p, {"<cat-toy>": ONE}), ("<cat-toy>", "HERE"), [ONE[None]],
    ),
    "token.bin": (lambda p: write(p, {"<dog>": TWO}), ("<dog>", "token"), [TWO]),
    "card.png": (lambda p: png(p, TWO), ("card",), [TWO]),
    "card.webp": (lambda p: edges(p.with_suffix(".png"), TWO), ("card",), [TWO]),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_every_form(name, tmp_path):
    make, words, vectors = FORMS[name]
    make(tmp_path / name)
    path = tmp_path / name
    file = open_embedding(path if path.exists() else path.with_suffix(".png"))
    assert file.words == tuple(tmp_path.name if word == "HERE" else word for word in words)
    for found, expected in zip(file.vectors, vectors, strict=True):
        torch.testing.assert_close(found, expected, atol=0, rtol=0)
    assert len(file.sha256) == 64
    assert file.base == ("SDXL" if len(vectors) == 2 else "SD 1.x")


def test_what_we_save_is_read(tmp_path):
    for name, vectors in (("a.pt", TWO), ("b.safetensors", TWO), ("c.safetensors", (TWO, WIDE))):
        file = open_embedding(save_embedding(tmp_path / name, vectors))
        each = vectors if isinstance(vectors, tuple) else (vectors,)
        assert all(torch.equal(a, b) for a, b in zip(file.vectors, each, strict=True))
        assert file.words == (name[0],)


def test_prompts_find_them_by_name(tmp_path, monkeypatch):
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DARKROOM_MODELS", str(tmp_path / "more"))
    (tmp_path / "more/embeddings/own").mkdir(parents=True)
    folder = tmp_path / "more/embeddings"
    write(folder / "Bad-Hands.pt", a1111(TWO))
    write(folder / "own/learned_embeds.bin", {"<cat-toy>": ONE})
    png(folder / "card.png", TWO)
    Image.new("RGB", (20, 20), (255, 255, 255)).save(folder / "fox.png")
    save_file({"lora_unet_conv_in.lora_down.weight": torch.zeros(1)}, folder / "fox.safetensors")
    (folder / "broken.pt").write_bytes(b"nothing")
    found = mentioned(["a fox with <cat-toy>, a card, broken", "BAD-HANDS, blurry"])
    assert {word: path.name for word, path in found} == {
        "<cat-toy>": "learned_embeds.bin", "card": "card.png", "bad-hands": "Bad-Hands.pt",
    }  # fmt: skip
    assert mentioned(["cards and bad-handsome"]) == []
    assert not is_mentioned("cat", "a concatenation")
    assert open_embedding("Bad-Hands").name == "Bad-Hands"
    assert find("card", "textual inversion") == folder / "card.png"
    assert sha256_of(folder / "card.png") == open_embedding("card").sha256
    with pytest.raises(ModelNotFoundError, match="no textual inversion is called 'bad-hand'"):
        open_embedding("bad-hand")


def test_what_does_not_fit_is_refused(tmp_path):
    file = open_embedding(save_embedding(tmp_path / "x.safetensors", (TWO, WIDE)))
    assert [t.shape[1] for t in fit_embedding(file, (768, 1280))] == [768, 1280]
    assert [t.shape[1] for t in fit_embedding(file, (1280,))] == [1280]
    with pytest.raises(ModelMismatchError, match="x: this is a .* SDXL; the model is SD 2.x"):
        fit_embedding(file, (1024,), "SD 2.x")
    one = open_embedding(save_embedding(tmp_path / "y.pt", TWO))
    with pytest.raises(ModelMismatchError, match="for SD 1.x; the model is SDXL"):
        fit_embedding(one, (768, 1280), "SDXL")
    Image.new("RGB", (20, 20), (255, 255, 255)).save(tmp_path / "empty.png")
    with pytest.raises(CheckpointError, match="no textual inversion is in this picture"):
        open_embedding(tmp_path / "empty.png")
    info = PngInfo()
    info.add_text("sd-ti-embedding", "bm90IGpzb24=")
    Image.new("RGB", (20, 20)).save(tmp_path / "bad.png", pnginfo=info)
    with pytest.raises(CheckpointError, match="is damaged"):
        open_embedding(tmp_path / "bad.png")
    save_file({"a": ONE, "b": ONE.clone()}, tmp_path / "z.safetensors")
    with pytest.raises(CheckpointError, match="z: not a textual inversion"):
        open_embedding(tmp_path / "z.safetensors")
    with pytest.raises(ModelMismatchError, match="expected a hypernetwork, this is: textual inv"):
        check_hypernetwork(tmp_path / "y.pt")
