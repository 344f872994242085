import threading

import pytest
from PIL import Image

from darkroom.vision.reading import read_ahead
from darkroom.vision.search import NAME, Index, Writer
from darkroom.vision.search.embedding import embed, pictures_in
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
    names = [file.path for file in pictures_in(folder)]
    assert names == sorted(names)
    assert len(names) == 8
    assert "deeper/red.JPG" in names
    assert not [name for name in names if "hidden" in name or "notes" in name]


def test_what_cannot_be_read_is_named(folder):
    Image.new("1", (9000, 9000)).save(folder / "large.png")
    whole = (folder / "red.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "secret.png").write_bytes(whole)
    files = pictures_in(folder)
    (folder / "secret.png").unlink()  # between listing and reading
    encoder = things.encoder()
    with Writer(folder / NAME, folder, encoder) as writer:
        told = list(embed(writer, encoder, folder, files, batch=3))
    assert [one.file for one in told] == files
    problems = {one.file.path: one.problem for one in told if one.problem}
    assert set(problems) == {"broken.jpg", "large.png", "cut.png", "secret.png"}
    assert all(name in problem for name, problem in problems.items())
    assert len(Index.open(folder)) == 7


def test_a_picture_that_breaks_is_dropped(folder):
    encoder = things.encoder()
    for _ in range(2):
        with Writer(folder / NAME, folder, encoder) as writer:
            new = writer.changes(pictures_in(folder)).new
            problems = [one.file.path for one in embed(writer, encoder, folder, new) if one.problem]
        (folder / "red.png").write_bytes(b"no picture any more")
    assert problems == ["broken.jpg", "red.png"]
    assert "red.png" not in [entry.file.path for entry in Index.open(folder).entries()]


def test_reading_ahead_keeps_the_order_and_leaves_no_thread():
    drawn = []

    def items():
        for i in range(50):
            drawn.append(i)
            yield i

    before = threading.active_count()
    results = read_ahead(lambda i: i * i, items(), ahead=5, workers=3)
    assert [next(results) for _ in range(3)] == [0, 1, 4]
    assert len(drawn) <= 9
    assert list(results) == [i * i for i in range(3, 50)]
    stopped = read_ahead(lambda i: 1 // i, [1, 0, 1], ahead=1)
    with pytest.raises(ZeroDivisionError):
        list(stopped)
    assert threading.active_count() == before
