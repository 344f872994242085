"""``embed``, ``search``, ``dedupe``, with a model that has learned nothing: exact all the same."""

import json
import os
from pathlib import Path

import numpy as np
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
    assert (ended.answer["pictures"], ended.answer["added"]) == (6, 6)
    assert [skip["path"] for skip in ended.answer["skipped"]] == ["photos/bad.png"]
    assert "left out: bad.png" in ended.err
    assert Path(ended.answer["index"]) == (photos / NAME).absolute()

    ended = darkroom("search", photos, "a red square", "--count", 4, "--grid", "best.png", "--json")
    assert ended.code == 0, ended.err
    matches = ended.answer["matches"]
    assert len(matches) == 4
    assert (ended.answer["pictures"], ended.answer["model"]) == (6, str(model))
    assert [m["score"] for m in matches] == sorted((m["score"] for m in matches), reverse=True)
    assert all(Path(match["path"]).is_file() for match in matches)
    with Image.open("best.png") as grid:
        assert grid.size == (448, 448)


def test_embed_again_and_what_has_changed(darkroom, model, photos):
    darkroom("embed", photos, "--model", model)
    (photos / "red.png").unlink()
    things.draw("red", "bar").save(photos / "new.png")
    ended = darkroom("embed", photos, "--model", model, "--json")
    fields = ("added", "unchanged", "gone", "pictures")
    assert [ended.answer[field] for field in fields] == [1, 5, 1, 6]
    assert "1 new or changed, 1 gone, 1 left out" in ended.err
    ended = darkroom("embed", photos, "--model", model, "--again", "--json")
    assert [ended.answer[field] for field in fields] == [6, 0, 0, 6]


def test_words_on_a_page_and_a_picture_as_the_query(darkroom, model, photos):
    darkroom("embed", photos, "--model", model)
    ended = darkroom("search", photos, photos / "green.png", "--count", "2")
    assert ended.code == 0, ended.err
    lines = [line.split("\t") for line in ended.out.splitlines()]
    assert lines[0] == ["", "SCORE", "PICTURE"]
    assert lines[1][:2] == ["1", "1.000"]
    assert lines[1][2].endswith("photos/green.png")
    assert len(lines) == 3
    more = ("--image", photos / "red.png", "--without", "bar", "--json")
    both = darkroom("search", photos, "a cross", *more)
    assert both.code == 0, both.err
    only = darkroom("search", photos, *more)
    assert only.answer["images"] == both.answer["images"] == ["photos/red.png"]
    assert only.answer["matches"] != both.answer["matches"]


def test_an_index_elsewhere(darkroom, model, photos):
    Path("indexes").mkdir()
    assert darkroom("embed", photos, "--model", model, "--out", "indexes/a").code == 0
    assert not (photos / NAME).exists()
    ended = darkroom("search", "indexes/a", "bar", "--json")
    assert ended.code == 0, ended.err
    assert all(Path(match["path"]).is_file() for match in ended.answer["matches"])
    assert Index.open("indexes/a").model == str(model)
    ended = darkroom("embed", photos / "more", "--model", model, "--out", "indexes/a")
    assert ended.code == 3
    assert "not of" in ended.error
    ended = darkroom("embed", photos, "--model", model, "--out", photos / "more", "--again")
    assert ended.code == 3
    assert "in the way" in ended.error
    assert len(list((photos / "more").iterdir())) == 3


def test_a_registered_model(darkroom, model, photos):
    darkroom("models", "add", model, "--name", "finder")
    assert darkroom("embed", photos, "--model", "finder").code == 0
    assert Index.open(photos).model == "finder"
    assert darkroom("search", photos, "bar").code == 0


def test_another_model_than_the_index_s(darkroom, model, photos, tmp_path):
    other = things.encoder(size=32).save(tmp_path / "other")
    darkroom("embed", photos, "--model", model)
    for verb in (("search", photos, "bar"), ("embed", photos)):
        ended = darkroom(*verb, "--model", other)
        assert ended.code == 3
        assert f"was made with {model}" in ended.error
    assert darkroom("embed", photos, "--model", other, "--again").code == 0
    assert Index.open(photos).model == str(other)


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


def test_another_kind_of_model(darkroom, photos):
    ended = darkroom("embed", photos, "--model", "emoji")
    assert ended.code == 3
    assert "does not compare pictures and texts" in ended.error
    assert darkroom("embed", photos, "--model", "nothing-called-that").code == 3


def test_search_before_embedding_and_with_nonsense(darkroom, model, photos):
    for verb in (("search", photos, "dogs"), ("dedupe", photos)):
        ended = darkroom(*verb)
        assert ended.code == 3
        assert "darkroom embed photos" in ended.error
    assert darkroom("search", "nowhere", "dogs").code == 3
    assert darkroom("search", photos / "red.png", "dogs").code == 3
    darkroom("embed", photos, "--model", model)
    assert darkroom("search", photos, " ").code == 2
    assert darkroom("search", photos).code == 2
    assert darkroom("search", photos, "bar", "--without", "bar").code == 2
    assert darkroom("search", photos, "dogs", "--grid", "grid.gif").code == 2
    assert darkroom("search", photos, "--image", photos / "bad.png").code == 3
    os.remove(photos / "red.png")  # since it was embedded
    ended = darkroom("search", photos, "dogs", "--grid", "grid.png", "--json")
    assert ended.code == 0
    assert "left out: red.png" in ended.err
    assert json.dumps(ended.answer)
    with (photos / NAME / "vectors-1").open("r+b") as file:
        file.truncate(7)
    for verb in (
        ("search", photos, "dogs"),
        ("dedupe", photos),
        ("embed", photos, "--model", model),
    ):
        ended = darkroom(*verb)
        assert ended.code == 3
        assert "vectors-1 holds 0 of 6 rows" in ended.error


@pytest.fixture
def copies(darkroom, model, photos) -> Path:
    """A larger red square, its bytes under another name, and a green one as JPEG."""
    large = things.draw("red", "square").resize((64, 64))
    large.save(photos / "large.png")
    large.save(photos / "more" / "large again.png")
    things.draw("green", "square").save(photos / "green.jpg", quality=95)
    darkroom("embed", photos, "--model", model)
    return photos


def test_copies_are_listed_and_only_moved_when_told(darkroom, copies):
    ended = darkroom("dedupe", copies, "--identical", "--json")
    assert ended.code == 0, ended.err
    (group,) = ended.answer["groups"]
    assert group["keep"].endswith("photos/large.png")
    assert group["copies"] == [
        {
            "path": str(copies / "more/large again.png"),
            "similarity": 1.0,
            "identical": True,
        }
    ]
    ended = darkroom("dedupe", copies, "--threshold", "0.9999", "--json")
    (group,) = (g for g in ended.answer["groups"] if g["keep"].endswith("photos/large.png"))
    assert [Path(copy["path"]).name for copy in group["copies"]] == ["large again.png", "red.png"]
    assert len(list(copies.rglob("*.*g"))) == 10

    ended = darkroom("dedupe", copies, "--identical", "--move-to", "copies")
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[0] == "GROUP\tSIMILARITY\tPICTURE"
    assert Path("copies/more/large again.png").is_file()
    assert not (copies / "more/large again.png").exists()
    ended = darkroom("dedupe", copies, "--identical", "--json")
    assert (ended.answer["copies"], ended.answer["stale"]) == (0, ["more/large again.png"])


def test_moving_never_replaces(darkroom, copies):
    target = Path("copies/more/large again.png")
    target.parent.mkdir(parents=True)
    target.write_text("mine")
    ended = darkroom("dedupe", copies, "--identical", "--move-to", "copies")
    assert ended.code == 3
    assert "nothing was moved" in ended.error
    assert target.read_text() == "mine"
    assert darkroom("dedupe", copies, "--move-to", copies / "here").code == 2
    assert darkroom("dedupe", copies, "--threshold", 2).code == 2


def test_the_built_in_encoder_says_what_it_knows(darkroom, tmp_path):
    place = tmp_path / "noise"
    place.mkdir()
    for seed in range(3):
        noise = np.random.default_rng(seed).integers(0, 255, (40, 40, 3), np.uint8)
        Image.fromarray(noise).save(place / f"{seed}.png")
    embedded = darkroom("embed", place)
    assert "emoji-clip (built in, small) knows" in embedded.err
    ended = darkroom("search", place, "dogs on the grass", "--json")
    assert ended.code == 0, ended.err
    assert ended.answer["likely"] is False
    assert "nothing here is likely to show 'dogs on the grass'" in ended.err
