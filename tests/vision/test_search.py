import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.errors import CheckpointError, ModelMismatchError
from darkroom.vision.search import NAME, Index, embed, pictures_in, search
from vision import things


@pytest.fixture
def folder(tmp_path):
    """Six pictures, one of them twice and one deeper; and what is no picture."""
    place = tmp_path / "pictures"
    (place / "deeper").mkdir(parents=True)
    (place / ".hidden").mkdir()
    for colour in things.COLOURS:
        things.draw(colour, "square").save(place / f"{colour}.png")
        things.draw(colour, "bar").save(place / "deeper" / f"{colour}.JPG", "JPEG")
    things.draw("red", "square").save(place / "copy.webp", lossless=True)
    things.draw("red", "square").save(place / ".hidden" / "x.png")
    (place / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    (place / "notes.txt").write_text("words")
    return place


def test_pictures_at_any_depth(folder):
    names = [str(path.relative_to(folder)) for path in pictures_in(folder)]
    assert names == sorted(names)
    assert len(names) == 8
    assert "deeper/red.JPG" in names
    assert not [name for name in names if "hidden" in name or "notes" in name]


@pytest.fixture
def index(folder):
    found = [
        one for one in embed(things.encoder(), pictures_in(folder), batch=3) if not one.problem
    ]
    names = tuple(str(one.path.relative_to(folder)) for one in found)
    return Index(folder, names, torch.stack([one.vector for one in found]), "tiny")


def test_embedding_names_what_it_cannot_read(folder):
    told = list(embed(things.encoder(), pictures_in(folder), batch=3))
    assert [one.path for one in told] == pictures_in(folder)
    bad = [one for one in told if one.vector is None]
    assert [one.path.name for one in bad] == ["broken.jpg"]
    assert "broken.jpg" in bad[0].problem
    assert all(abs(one.vector.norm() - 1) < 1e-5 for one in told if one.vector is not None)
    alone = next(embed(things.encoder(), [folder / "blue.png"]))
    together = next(one for one in told if one.path.name == "blue.png")
    assert torch.allclose(alone.vector, together.vector, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_picture_finds_itself_first_and_once(folder, index, dtype):
    index = Index(index.folder, index.paths, index.embeddings.to(dtype), index.model)
    red = things.encoder().images(things.encoder().read(folder / "red.png")[None])[0]
    matches = search(index, red, 20)
    assert matches[0].path in (folder / "red.png", folder / "copy.webp")
    assert matches[0].score == pytest.approx(1, abs=2e-3)
    assert len(matches) == 6  # seven readable pictures, one of them a copy
    scores = [match.score for match in matches]
    assert scores == sorted(scores, reverse=True)
    assert search(index, red, 2) == matches[:2]


def test_exact_scores(index):
    query = torch.nn.functional.normalize(torch.randn(8, generator=torch.Generator()), dim=0)
    for match in search(index, query, 3):
        row = index.paths.index(str(match.path.relative_to(index.folder)))
        expected = np.dot(index.embeddings[row].numpy(), query.numpy())
        assert match.score == pytest.approx(float(expected), abs=1e-5)


def test_saved_and_opened_and_moved_together(folder, index, tmp_path):
    path = index.save(folder / NAME)
    for where in (path, folder):
        again = Index.load(where)
        assert again.paths == index.paths
        assert again.folder == folder
        assert again.model == "tiny"
        assert torch.equal(again.embeddings, index.embeddings)
    moved = folder.rename(tmp_path / "elsewhere")
    assert (Index.load(moved).folder / index.paths[0]).is_file()


def test_what_is_no_index_is_refused(folder, index, tmp_path):
    with pytest.raises(CheckpointError, match="darkroom embed"):
        Index.load(folder)
    (folder / NAME).write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="not an index"):
        Index.load(folder)
    encoder = things.encoder()
    saved = encoder.save(tmp_path / "model")
    with pytest.raises(CheckpointError, match="not an index"):
        Index.load(saved / "model.safetensors")
    with pytest.raises(ModelMismatchError, match="8 numbers"):
        search(index, torch.ones(9))


def test_an_animation_or_a_bomb_is_a_problem_not_an_end(folder):
    Image.new("1", (9000, 9000)).save(folder / "large.png")
    problems = [one.problem for one in embed(things.encoder(), pictures_in(folder)) if one.problem]
    assert len(problems) == 2
    assert any("large.png" in problem for problem in problems)
