import numpy as np
import pytest
import torch
import torch.nn.functional as F

from darkroom.errors import ImageError, ModelMismatchError
from darkroom.vision.search import NAME, Index, Writer, embed, pictures_in, query, search
from darkroom.vision.search.nearest import nearest
from darkroom.vision.search.store import File
from vision import things


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six pictures and one of them again, embedded."""
    place = tmp_path_factory.mktemp("pictures")
    for colour in things.COLOURS:
        for shape in ("square", "bar"):
            things.draw(colour, shape).save(place / f"{colour} {shape}.png")
    things.draw("red", "square").save(place / "copy.webp", lossless=True)
    encoder = things.encoder()
    with Writer(place / NAME, place, encoder) as writer:
        list(embed(writer, encoder, place, pictures_in(place)))
    return place


def test_a_picture_finds_itself_first_and_once(folder):
    index = Index.open(folder)
    asked = query(things.encoder(), pictures=[folder / "red square.png"])
    matches = search(index, asked, 20)
    assert matches[0].path in (folder / "red square.png", folder / "copy.webp")
    assert matches[0].score == pytest.approx(1, abs=1e-3)
    assert len(matches) == 6
    scores = [match.score for match in matches]
    assert scores == sorted(scores, reverse=True)
    assert search(index, asked, 2) == matches[:2]


def test_words_pictures_and_what_is_not_wanted(folder):
    encoder = things.encoder()
    word, other = encoder.encode_text(["a bar", "red"])
    image = encoder.encode_image(folder / "red bar.png")[0]
    both = query(encoder, ["a bar"], [folder / "red bar.png"], ["red"])
    assert torch.allclose(both, F.normalize(word + image - other, dim=0), atol=1e-5)
    with pytest.raises(ValueError, match="nothing to look for"):
        query(encoder)
    with pytest.raises(ValueError, match="the same"):
        query(encoder, ["a bar"], without=["a bar"])
    with pytest.raises(ImageError):
        query(encoder, pictures=[b"nothing"])


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """3,000 vectors in bunches, some rows without a picture."""
    place = tmp_path_factory.mktemp("many")
    encoder = things.encoder()
    g = torch.Generator().manual_seed(1)
    middles = torch.randn(30, 8, generator=g).repeat_interleave(100, 0)
    vectors = F.normalize(middles + 0.3 * torch.randn(3000, 8, generator=g), dim=1)
    with Writer(place / NAME, place, encoder) as writer:
        for i in range(0, 3000, 1000):
            files = [(File(f"{j}.png", j, j), b"%d" % j, 1) for j in range(i, i + 1000)]
            writer.add(files, vectors[i : i + 1000])
        writer.drop([f"{j}.png" for j in range(0, 3000, 50)])
        writer.compact()
    return Index.open(place)


def test_the_nearest_are_exact(many):
    assert (len(many), len(many.holes)) == (2940, 60)
    g = torch.Generator().manual_seed(2)
    alive = np.setdiff1d(np.arange(3000), many.holes.numpy())
    vectors = F.normalize(many.vectors.float(), dim=1).numpy().astype(np.float64)
    for asked in F.normalize(torch.randn(20, 8, generator=g), dim=1):
        rows, scores = nearest(many, asked, 25)
        truth = vectors[alive] @ asked.double().numpy()
        best = np.sort(truth)[::-1][:25]
        assert np.allclose(scores.numpy(), best, atol=1e-5)
        assert np.allclose(vectors[rows.numpy()] @ asked.double().numpy(), best, atol=1e-5)
    assert len(nearest(many, asked, 9000)[0]) == 2940


def test_of_another_width_and_of_nothing(many, tmp_path):
    with pytest.raises(ModelMismatchError, match="8 numbers"):
        search(many, torch.ones(9))
    with Writer(tmp_path / NAME, tmp_path, things.encoder()) as writer:
        writer.commit()
    assert search(Index.open(tmp_path), torch.ones(8)) == []
