"""A store that grows, shrinks, is cut off and is damaged."""

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cases import quick
from darkroom.errors import CheckpointError, ModelMismatchError
from darkroom.vision.encoder import Encoder
from darkroom.vision.search import NAME, Index, embed, pictures_in
from darkroom.vision.search.store import FORMER, LIST, File, fingerprint
from darkroom.vision.search.writing import Writer
from vision import things


@pytest.fixture
def encoder() -> Encoder:
    return things.encoder()


@pytest.fixture
def folder(tmp_path) -> Path:
    place = tmp_path / "pictures"
    (place / "deeper").mkdir(parents=True)
    for colour in things.COLOURS:
        things.draw(colour, "square").save(place / f"{colour}.png")
        things.draw(colour, "bar").save(place / "deeper" / f"{colour}.jpg")
    return place


def run(folder: Path, encoder: Encoder, share: float = 0.1) -> tuple[list, list]:
    """Embed what is new: (what was looked at, what is gone)."""
    with Writer(folder / NAME, folder, encoder) as writer:
        changes = writer.changes(pictures_in(folder))
        told = list(embed(writer, encoder, folder, changes.new, batch=2))
        writer.drop(changes.gone)
        writer.compact(share)
    return [one.file.path for one in told], changes.gone


def contents(folder: Path) -> dict[str, torch.Tensor]:
    """Path -> vector, through the opened index."""
    index = Index.open(folder)
    entries = index.entries()
    assert len(entries) == len(index)
    return {entry.file.path: index.vectors[entry.row].clone() for entry in entries}


def expected(folder: Path, encoder: Encoder) -> dict[str, torch.Tensor]:
    return {
        file.path: encoder.encode_image(folder / file.path)[0].half()
        for file in pictures_in(folder)
    }


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(
        torch.allclose(found[name].float(), wanted[name].float(), atol=2e-3) for name in found
    )


def test_what_is_embedded_is_there(folder, encoder):
    looked, gone = run(folder, encoder)
    assert len(looked) == 6
    assert not gone
    assert same(contents(folder), expected(folder, encoder))
    index = Index.open(folder / NAME)
    assert (index.folder, index.width, len(index)) == (folder, 8, 6)
    assert index.vectors.dtype == torch.float16
    entry = next(e for e in index.entries() if e.file.path == "red.png")
    assert entry.pixels == 32 * 32
    assert entry.file.bytes == (folder / "red.png").stat().st_size
    assert index.entries([entry.row, 0])[0] == entry


def test_only_what_changed_is_looked_at_again(folder, encoder):
    run(folder, encoder)
    assert run(folder, encoder) == ([], [])
    things.draw("red", "cross").save(folder / "red.png")
    os.utime(folder / "red.png", ns=(1, 1))
    things.draw("red", "cross", 3).save(folder / "new.webp", lossless=True)
    (folder / "blue.png").unlink()
    assert run(folder, encoder, share=1) == (["new.webp", "red.png"], ["blue.png"])
    assert len(Index.open(folder).holes) == 2
    assert same(contents(folder), expected(folder, encoder))


def test_moved_touched_and_copied_files_need_no_network(folder, encoder, monkeypatch):
    run(folder, encoder)
    (folder / "blue.png").rename(folder / "azure.png")
    (folder / "copy.png").write_bytes((folder / "red.png").read_bytes())
    os.utime(folder / "green.png", ns=(5, 5))
    monkeypatch.setattr(Encoder, "images", lambda *_: pytest.fail("looked at a picture again"))
    looked, gone = run(folder, encoder)
    assert (sorted(looked), gone) == (["azure.png", "copy.png", "green.png"], ["blue.png"])
    monkeypatch.undo()
    assert same(contents(folder), expected(folder, encoder))


def test_holes_are_closed(folder, encoder):
    run(folder, encoder)
    for name in ("red.png", "deeper/blue.jpg"):
        (folder / name).unlink()
    run(folder, encoder)
    index = Index.open(folder)
    assert (len(index.holes), len(index.vectors), index.generation) == (0, 4, 2)
    assert sorted(p.name for p in (folder / NAME).iterdir()) == [
        "codes-2", LIST, "scales-2", "vectors-2",
    ]  # fmt: skip
    assert same(contents(folder), expected(folder, encoder))
    for file in pictures_in(folder):
        (folder / file.path).unlink()
    run(folder, encoder)
    assert len(Index.open(folder)) == 0


def test_a_reader_keeps_what_it_opened(folder, encoder):
    run(folder, encoder)
    index = Index.open(folder)
    before = index.vectors.clone()
    (folder / "red.png").unlink()
    run(folder, encoder, share=0)
    assert torch.equal(index.vectors, before)
    with pytest.raises(CheckpointError, match="open it again"):
        index.entries([0])


KILLED = """
import os, sys
from pathlib import Path
from vision import things
from darkroom.vision.search import NAME, Writer, embed, pictures_in, embedding
from darkroom.vision.search.store import File
folder, mode = Path(sys.argv[1]), sys.argv[2]
encoder = things.encoder()
embedding.EVERY = 0
with Writer(folder / NAME, folder, encoder) as writer:
    changes = writer.changes(pictures_in(folder))
    told = embed(writer, encoder, folder, changes.new, batch=2)
    if mode == "embedding":
        for _ in range(3):  # two batches are in the files, one of them committed
            next(told)
        writer.add([(File("x", 1, 1), b"", 1)], encoder.encode_text("a bar"))
        os._exit(9)
    list(told)
    writer.drop(changes.gone)
    Writer._tell = lambda *a, **k: os._exit(9) if writer.generation > 1 else None
    writer.compact(0)
"""


@pytest.mark.parametrize("mode", quick(["embedding"], ["embedding", "compacting"]))
def test_killed_at_any_time_it_goes_on_where_it_was(folder, encoder, mode):
    if mode == "compacting":
        run(folder, encoder)
        (folder / "red.png").unlink()
    path = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", KILLED, str(folder), mode], env=path, check=False)
    assert done.returncode == 9
    if mode == "embedding":
        kept = contents(folder)
        assert set(kept) == {"blue.png", "deeper/blue.jpg", "deeper/green.jpg", "deeper/red.jpg"}
        assert sorted(run(folder, encoder)[0]) == ["green.png", "red.png"]
    else:
        assert "vectors-2" in os.listdir(folder / NAME)
        assert len(Index.open(folder)) == 5
        assert run(folder, encoder, share=1) == ([], [])
        assert "vectors-2" not in os.listdir(folder / NAME)
    assert same(contents(folder), expected(folder, encoder))


def test_one_writer_at_a_time(folder, encoder):
    with (
        Writer(folder / NAME, folder, encoder),
        pytest.raises(CheckpointError, match="at work"),
    ):
        Writer(folder / NAME, folder, encoder)
    run(folder, encoder)


def test_another_model_is_refused(folder, encoder, tmp_path):
    run(folder, encoder)
    other = things.encoder(size=32)
    assert fingerprint(things.encoder()) == fingerprint(encoder) != fingerprint(other)
    with pytest.raises(ModelMismatchError, match="made with"):
        Writer(folder / NAME, folder, other)
    with pytest.raises(ModelMismatchError, match="made with"):
        Index.open(folder).check(other)
    Index.open(folder).check(encoder)
    with torch.no_grad():
        next(encoder.model.parameters()).add_(0.1)  # trained on
    with pytest.raises(ModelMismatchError, match="changed since"):
        Index.open(folder).check(encoder)
    with pytest.raises(ModelMismatchError, match="not of"):
        Writer(folder / NAME, tmp_path, things.encoder())


def test_it_moves_with_its_folder(folder, encoder, tmp_path):
    run(folder, encoder)
    moved = folder.rename(tmp_path / "elsewhere")
    index = Index.open(moved)
    assert index.folder == moved
    assert run(moved, encoder) == ([], [])


def test_damage_is_one_line(folder, encoder):
    with pytest.raises(CheckpointError, match="darkroom embed"):
        Index.open(folder)
    (folder / FORMER).write_bytes(b"old")
    with pytest.raises(CheckpointError, match="no index of this version"):
        Index.open(folder)
    with pytest.raises(CheckpointError, match="older Darkroom"):
        Index.open(folder / FORMER)
    run(folder, encoder)
    store = folder / NAME
    whole = (store / "codes-1").read_bytes()
    for damage in (whole[:-1], b""):
        (store / "codes-1").write_bytes(damage)
        for use in (lambda: Index.open(folder), lambda: Writer(store, folder, encoder)):
            with pytest.raises(CheckpointError, match="codes-1 holds .* of 6 rows"):
                use()
    (store / "codes-1").unlink()
    with pytest.raises(CheckpointError, match="damaged"):
        Index.open(folder)
    (store / "codes-1").write_bytes(whole)
    with sqlite3.connect(store / LIST) as files:
        files.execute("UPDATE about SET value = '2' WHERE key = 'version'")
    files.close()
    with pytest.raises(CheckpointError, match="version 2"):
        Index.open(folder)
    (store / LIST).write_bytes(b"no list at all" * 100)
    for use in (lambda: Index.open(folder), lambda: Writer(store, folder, encoder)):
        with pytest.raises(CheckpointError, match="damaged"):
            use()
    with pytest.raises(CheckpointError, match="in the way"):
        Writer(folder / "deeper", folder, encoder)
    assert len(os.listdir(folder / "deeper")) == 3


def test_names_of_any_bytes(folder, encoder):
    odd = os.fsencode(folder) + b"/\xff\xfe \xe2\x82\xac.png"
    (folder / "red.png").rename(Path(os.fsdecode(odd)))
    run(folder, encoder)
    assert os.path.basename(os.fsdecode(odd)) in contents(folder)
    assert run(folder, encoder) == ([], [])


def test_changes_are_told_by_size_and_time(folder, encoder):
    run(folder, encoder)
    listing = pictures_in(folder)
    with Writer(folder / NAME, folder, encoder) as writer:
        assert len(writer) == 6
        first = listing[0]
        touched = [File(first.path, first.bytes, time.time_ns()), *listing[1:-1]]
        assert writer.changes(touched) == (touched[:1], [listing[-1].path], 4)
