"""``embed`` and ``search``, with a model that has learned nothing: exact all the same."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from darkroom.vision.search import NAME, Index
from vision import things


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return things.encoder().save(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def photos() -> Path:
    folder = Path("photos")
    (folder / "more").mkdir(parents=True)
    for colour in things.COLOURS:
        things.draw(colour, "square").save(folder / f"{colour}.png")
        things.draw(colour, "cross").save(folder / "more" / f"{colour}.jpg")
    (folder / "bad.png").write_bytes(b"no picture")
    return folder


def test_embed_then_search(darkroom, model, photos):
    ended = darkroom("embed", photos, "--model", model, "--json")
    assert ended.code == 0, ended.err
    assert ended.answer["pictures"] == 6
    assert [skip["path"] for skip in ended.answer["skipped"]] == ["photos/bad.png"]
    assert "left out: bad.png" in ended.err
    assert Path(ended.answer["index"]) == (photos / NAME).absolute()

    ended = darkroom("search", photos, "a red square", "--count", 4, "--grid", "best.png", "--json")
    assert ended.code == 0, ended.err
    matches = ended.answer["matches"]
    assert len(matches) == 4
    assert ended.answer["pictures"] == 6
    assert [m["score"] for m in matches] == sorted((m["score"] for m in matches), reverse=True)
    assert all(Path(match["path"]).is_file() for match in matches)
    with Image.open("best.png") as grid:
        assert grid.size == (448, 448)


def test_words_on_a_page_and_a_picture_as_the_query(darkroom, model, photos):
    darkroom("embed", photos, "--model", model)
    ended = darkroom("search", photos, photos / "green.png", "--count", "2")
    assert ended.code == 0, ended.err
    lines = [line.split("\t") for line in ended.out.splitlines()]
    assert lines[0] == ["", "SCORE", "PICTURE"]
    assert lines[1][:2] == ["1", "1.000"]
    assert lines[1][2].endswith("photos/green.png")
    assert len(lines) == 3


def test_an_index_elsewhere(darkroom, model, photos):
    Path("indexes").mkdir()
    assert darkroom("embed", photos, "--model", model, "--out", "indexes/a.safetensors").code == 0
    assert not (photos / NAME).exists()
    ended = darkroom("search", "indexes/a.safetensors", "bar", "--json")
    assert ended.code == 0, ended.err
    assert all(Path(match["path"]).is_file() for match in ended.answer["matches"])
    assert Index.load("indexes/a.safetensors").model == str(model)
    again = darkroom("embed", photos, "--model", model, "--out", "indexes/a.safetensors")
    assert again.code == 0  # an index is a cache: it is replaced


def test_a_registered_model(darkroom, model, photos):
    darkroom("models", "add", model, "--name", "finder")
    assert darkroom("embed", photos, "--model", "finder").code == 0
    assert Index.load(photos).model == "finder"
    assert darkroom("search", photos, "bar").code == 0


def test_nothing_to_embed(darkroom, model, photos):
    Path("empty").mkdir()
    for folder in ("empty", "nowhere", photos / "red.png"):
        ended = darkroom("embed", folder, "--model", model)
        assert ended.code == 3
        assert Path(folder).name in ended.error
    Path("empty/x.png").write_bytes(b"no picture")
    ended = darkroom("embed", "empty", "--model", model)
    assert ended.code == 3
    assert "none of its 1 pictures" in ended.error
    assert not list(Path("empty").glob("*.safetensors"))


def test_no_model_yet(darkroom, photos):
    ended = darkroom("embed", photos)
    assert ended.code == 3
    assert "darkroom train clip-flickr8k.toml" in ended.error


def test_another_kind_of_model(darkroom, photos):
    ended = darkroom("embed", photos, "--model", "emoji")
    assert ended.code == 3
    assert "does not compare pictures and texts" in ended.error


def test_search_before_embedding_and_with_nonsense(darkroom, model, photos):
    ended = darkroom("search", photos, "dogs")
    assert ended.code == 3
    assert "darkroom embed photos" in ended.error
    assert darkroom("search", "nowhere", "dogs").code == 3
    darkroom("embed", photos, "--model", model)
    assert darkroom("search", photos, " ").code == 2
    assert darkroom("search", photos, "dogs", "--grid", "grid.gif").code == 2
    assert darkroom("embed", photos, "--model", model, "--out", "index.json").code == 2
    os.remove(photos / "red.png")  # since it was embedded
    ended = darkroom("search", photos, "dogs", "--grid", "grid.png", "--json")
    assert ended.code == 0
    assert "left out: red.png" in ended.err
    assert json.dumps(ended.answer)
