"""``darkroom segment``, with a network that has learned nothing: its files are right even so."""

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from darkroom.app.seeing.segmenting import named, target
from darkroom.masks import Mask, open_mask
from darkroom.models.fastsam.network import FastSAM, scaled
from darkroom.models.sam.config import DecoderConfig, SamConfig, VitConfig
from darkroom.models.sam.network import Sam
from darkroom.names import EXPORT_NAMES
from darkroom.vision.segment import Segmenter
from darkroom.weights.save import save
from vision import things

ENCODER = VitConfig(
    patch=8, channels=32, layers=2, heads=2, hidden=64, window=3, global_layers=(1,)
)
DECODER = DecoderConfig(heads=4, hidden=64, iou_hidden=32)
ALL = ("--pred-iou", "0", "--stability", "0", "--points-per-side", "4", "--nms", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    sam = Sam(SamConfig(size=64, channels=32, mask_channels=16, encoder=ENCODER, decoder=DECODER))
    return save(sam, tmp_path_factory.mktemp("models") / "tiny-sam")


@pytest.fixture
def segment(darkroom, model):
    return lambda *arguments: darkroom("segment", *arguments, "--model", model)


@pytest.fixture
def photo(home) -> Path:
    path = Path("photo.png")
    things.draw("red", "square").resize((60, 40)).save(path)
    return path


def test_a_point(segment, photo):
    ended = segment(photo, "--point", "30,20", "--json")
    assert ended.code == 0, ended.err
    (picture,) = ended.answer["pictures"]
    (mask,) = picture["masks"]
    assert (picture["width"], picture["height"]) == (60, 40)
    found = Mask.from_rle(mask["rle"])
    assert (found.area, list(found.box)) == (mask["area"], mask["box"])
    assert mask["source"] == "tiny-sam: point 30,20"
    assert np.array_equal(open_mask("masks/photo/0001.png").values, found.values)
    assert ended.answer["files"] == ["masks/photo/0001.png", "masks/photo-overlay.png"]
    with Image.open("masks/photo-overlay.png") as overlay:
        assert overlay.size == (60, 40)
        assert overlay.getpixel((30, 20)) == (0, 160, 0)  # the star


def test_candidates_points_and_boxes(segment, photo):
    ended = segment(photo, "--point", "30,20", "--point", "2,2,0", "--box", "5,5,50,35", "--json")
    (mask,) = ended.answer["pictures"][0]["masks"]
    assert mask["source"] == "tiny-sam: point 30,20, not 2,2, box 5,5,50,35"
    ended = segment(photo, "--point", "30,20", "--candidates", "--json")
    scores = [mask["score"] for mask in ended.answer["pictures"][0]["masks"]]
    assert scores == sorted(scores, reverse=True) and len(scores) == 3
    with Image.open("masks/photo-overlay.png") as figure:
        assert figure.width > 3 * 60
    ended = segment(photo, "--box", "5,5,50,35", "--box", "0,0,9,9", "--label", "thing", "--json")
    masks = ended.answer["pictures"][0]["masks"]
    assert [mask["label"] for mask in masks] == ["thing", "thing"]


def test_every_format_at_once(segment, photo):
    flags = [flag for name in EXPORT_NAMES for flag in ("--to", name)]
    ended = segment(photo, "--point", "30,20", *flags, "--out", "all")
    assert ended.code == 0, ended.err
    files = {path.relative_to("all").as_posix() for path in Path("all").rglob("*.*")}
    assert files == {
        "annotations.json", "annotations-polygons.json", "classes.txt", "data.yaml",
        "images/photo.png", "labels/photo.txt", "masks.csv", "photo-labels.png",
        "photo-overlay.png", "photo.json", "photo/0001.png", "tasks.json", "tasks-brush.json",
        "tasks-brush-interface.xml", "tasks-interface.xml",
    }  # fmt: skip
    assert all((Path("all") / name).stat().st_size for name in files)


def test_folders_and_what_cannot_be_read(segment, photo):
    (Path("photos") / "more").mkdir(parents=True)
    for name in ("a.png", "more/a.png", "a.jpg"):
        things.draw("blue", "cross").resize((50, 30)).save(Path("photos") / name)
    Path("photos/bad.png").write_bytes(b"no picture")
    Path("photos/cut.jpg").write_bytes(Path("photos/a.jpg").read_bytes()[:300])
    things.draw("blue", "cross").resize((20, 30)).save("photos/narrow.png")
    ended = segment("photos", photo, "--point", "40,20", "--to", "coco", "--json")
    assert ended.code == 0, ended.err
    skipped = {Path(one["path"]).name: one["problem"] for one in ended.answer["skipped"]}
    assert set(skipped) == {"bad.png", "cut.jpg", "narrow.png"}
    assert "narrow.png: point 40,20 lies outside of the picture, which is 20x30" in ended.err
    theirs = COCO("masks/annotations.json")
    names = [image["file_name"] for image in theirs.loadImgs(theirs.getImgIds())]
    assert sorted(names) == ["photo.png", "photos/a.jpg", "photos/a.png", "photos/more/a.png"]
    assert len(theirs.anns) == 4
    assert Path("masks/more/a-overlay.png").exists() and Path("masks/a-2-overlay.png").exists()
    ended = segment("photos/bad.png", "photos/cut.jpg", "--point", "4,4")
    assert ended.code == 3
    assert "none of the 2 pictures" in ended.error


def test_everything(segment, photo):
    ended = segment(photo, *ALL, "--outline", "--to", "labelmap", "--json")
    assert ended.code == 0, ended.err
    (picture,) = ended.answer["pictures"]
    assert len(picture["masks"]) > 1
    with Image.open("masks/photo-labels.png") as drawn:
        assert drawn.mode == "P" and np.asarray(drawn).max() <= len(picture["masks"])
    ended = segment(photo, "--everything", *ALL)
    lines = ended.out.splitlines()
    assert lines[0].split("\t") == ["PICTURE", "MASK", "SCORE", "AREA", "BOX", "LABEL"]
    assert len(lines) == 1 + len(picture["masks"])


def test_masks_of_an_earlier_run_do_not_stay(segment, photo):
    """Only those that it wrote itself; others of such names are not touched."""
    assert segment(photo, "--point", "9,9", "--candidates").code == 0
    assert len(list(Path("masks/photo").iterdir())) == 3
    ended = segment(photo, "--point", "9,9")
    assert ended.code == 0
    assert [path.name for path in Path("masks/photo").iterdir()] == ["0001.png"]
    assert "2 masks of an earlier run removed" in ended.err
    Path("masks/photo/0007.png").write_bytes(photo.read_bytes())
    Path("masks/photo/notes.png").write_bytes(photo.read_bytes())
    ended = segment(photo, "--point", "9,9")
    assert ended.code == 3
    assert "masks/photo/0007.png: is no mask of an earlier run" in ended.error
    assert Path("masks/photo/0007.png").exists() and Path("masks/photo/notes.png").exists()


def test_yolo_classes_keep_their_numbers(segment, photo):
    flags = ("--point", "9,9", "--to", "yolo", "--out", "set")
    assert segment(photo, *flags, "--label", "fox").code == 0
    photo.with_name("b.png").write_bytes(photo.read_bytes())
    assert segment("b.png", *flags, "--label", "owl").code == 0
    assert Path("set/classes.txt").read_text() == "fox\nowl\n"
    assert Path("set/labels/b.txt").read_text().startswith("1 ")
    Path("set/classes.txt").unlink()
    ended = segment("b.png", *flags, "--label", "owl")
    assert (ended.code, "classes.txt: no such file" in ended.error) == (3, True)


def test_words(segment, photo, tmp_path):
    encoder = things.encoder().save(tmp_path / "clip")
    words = ("--text", "the square", "--encoder", encoder, *ALL, "--json")
    ended = segment(photo, *words, "--threshold", "0")
    assert ended.code == 0, ended.err
    (mask,) = ended.answer["pictures"][0]["masks"]
    assert mask["label"] == "the square"
    ended = segment(photo, *words, "--threshold", "1")
    assert ended.code == 1
    assert "'the square': not found" in ended.error and "candidates: masks/photo-c" in ended.error
    assert Path("masks/photo-candidates.png").exists()
    assert ended.answer["pictures"][0]["masks"] == []


def test_nothing_found_is_said(segment, photo):
    ended = segment(photo, "--pred-iou", "1", "--points-per-side", "2")
    assert ended.code == 0
    assert "note: tiny-sam was sure of nothing; lower --pred-iou" in ended.err


def test_fastsam(darkroom, photo, tmp_path):
    torch.manual_seed(0)
    model = save(FastSAM(scaled(0.33, 0.0625, 1024)), tmp_path / "tiny-fastsam")
    flags = ("--model", model, "--imgsz", "64", "--json")
    ended = darkroom("segment", photo, *flags, "--conf", "0", "--iou", "0.5", "--to", "coco")
    assert ended.code == 0, ended.err
    (picture,) = ended.answer["pictures"]
    assert 0 < len(picture["masks"]) <= 300
    assert picture["masks"][0]["source"] == "tiny-fastsam: everything"
    assert len(COCO("masks/annotations.json").anns) == len(picture["masks"])
    for prompt in (("--point", "9,9", "--point", "20,9,0"), ("--box", "5,5,30,20")):
        ended = darkroom("segment", photo, *flags, "--conf", "0", "--no-retina", *prompt)
        assert ended.code == 0, ended.err
    ended = darkroom("segment", photo, *flags)
    assert ended.code == 0
    assert "sure of nothing; lower --conf" in ended.err
    ended = darkroom("segment", photo, *flags, "--stability", "0.5")
    assert ended.code == 2
    assert "--stability: is of SAM" in ended.error


def test_one_file(segment, photo):
    assert segment(photo, "--point", "9,9", "--out", "mask.png").code == 0
    assert open_mask("mask.png").values.shape == (40, 60)
    assert segment(photo, "--point", "9,9", "--to", "rle", "--out", "deep/a.json").code == 0
    assert json.loads(Path("deep/a.json").read_text())["width"] == 60
    assert not Path("masks").exists() and len(list(Path("deep").iterdir())) == 1
    ended = segment(photo, "--point", "9,9", "--out", "photo.png")
    assert ended.code == 3
    assert "one of the pictures" in ended.error
    assert open_mask("photo.png").values.shape == (40, 60)


def test_ctrl_c_leaves_whole_files(segment, photo, monkeypatch):
    for name in ("b.png", "c.png"):
        photo.with_name(name).write_bytes(photo.read_bytes())
    encode, seen = Segmenter.encode, []

    def interrupted(self, image):
        seen.append(image)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return encode(self, image)

    monkeypatch.setattr(Segmenter, "encode", interrupted)
    flags = ("--to", "coco", "--to", "csv", "--to", "yolo")
    ended = segment(photo, "b.png", "c.png", "--point", "9,9", *flags)
    assert ended.code == 130
    content = json.loads(Path("masks/annotations.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["photo.png", "b.png"]
    assert len(content["annotations"]) == 2
    assert len(Path("masks/masks.csv").read_text().splitlines()) == 3
    assert Path("masks/data.yaml").exists()
    assert not [path for path in Path("masks").rglob("*") if "part" in path.name]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--point", "30"], "expected X,Y"),
        (["--point", "30,nan"], "expected X,Y"),
        (["--point", "30,20,2"], "expected X,Y"),
        (["--point", "inf,20"], "expected X,Y"),
        (["--point", "3,4,0"], "give one in the object"),
        (["--point", "60,20"], "point 60,20 lies outside of the picture, which is 60x40"),
        (["--point", "-1,20"], "lies outside"),
        (["--box", "1,2,3"], "expected X1,Y1,X2,Y2"),
        (["--box", "30,5,10,9"], "nothing lies in it"),
        (["--box", "5,5,5,9"], "nothing lies in it"),
        (["--box", "5,5,61,9"], "leaves the picture"),
        (["--box", "5,5,nan,9"], "expected X1"),
        (["--box", "1,1,9,9", "--box", "2,2,9,9", "--point", "3,3"], "--box"),
        (["--point", "3,3", "--text", "dog"], "choose one"),
        (["--point", "3,3", "--everything"], "choose one"),
        (["--text", " "], "no words"),
        (["--candidates"], "without --point"),
        (["--point", "3,3", "--nms", "0.5"], "--nms: has no effect"),
        (["--point", "3,3", "--outline"], "--outline"),
        (["--every"], "without --text"),
        (["--pred-iou", "7"], "pred_iou of 7"),
        (["--points-per-side", "0"], "points_per_side of 0"),
        (["--conf", "0.5"], "is of FastSAM"),
        (["--imgsz", "100"], "multiple of 32"),
        (["--to", "voc"], "known: coco"),
        (["--to", "yolo", "--out", "a.txt"], "yolo is written to a folder"),
        (["--to", "coco", "--out", "a.png"], ".json"),
        (["--to", "coco", "--to", "csv", "--out", "a.csv"], "one file"),
    ],
)
def test_what_does_not_go_together(segment, photo, flags, said):
    ended = segment(photo, *flags)
    assert ended.code in (2, 3)
    assert said in ended.error
    assert not Path("masks").exists()


def odd(path: Path, kind: str) -> tuple[int, int]:
    """Write a picture of an unusual kind; its upright size."""
    picture = things.draw("green", "bar").resize((60, 40))
    if kind == "16-bit":
        picture = Image.fromarray((np.arange(2400).reshape(40, 60) * 27).astype(np.uint16))
    elif kind == "rotated":
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.save(path, exif=exif)
        return 40, 60
    elif kind == "1x1":
        picture = picture.resize((1, 1))
    else:
        picture = picture.convert(kind)
    picture.save(path)
    return picture.size


@pytest.mark.parametrize("kind", ["CMYK", "16-bit", "P", "1", "LA", "rotated", "1x1"])
def test_unusual_pictures(segment, home, kind):
    path = Path("odd.jpg" if kind in ("CMYK", "rotated") else "odd.png")
    width, height = odd(path, kind)
    # the last pixel of the upright picture
    ended = segment(path, "--point", f"{width - 1},{height - 1}", "--json")
    assert ended.code == 0, ended.err
    (picture,) = ended.answer["pictures"]
    assert (picture["width"], picture["height"]) == (width, height)
    for mask in picture["masks"]:
        assert mask["rle"]["size"] == [height, width]
    if picture["masks"]:
        with Image.open("masks/odd-overlay.png") as overlay:
            assert overlay.size == (width, height)
    else:  # said, not silent
        assert "empty mask" in ended.err


def header(width: int, height: int) -> bytes:
    """A PNG file that ends where its pixels begin."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 9999) + b"IDAT" + b"x" * 9


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("large.png", header(20_000, 20_000), "more than 50 million pixels"),
        ("cut.png", header(20, 20), "damaged or cut short"),
        ("text.png", b"no picture", "not a PNG, JPEG or WebP"),
        ("empty.png", b"", "empty.png"),
        ("gone.png", None, "check the path"),
    ],
)
def test_pictures_that_cannot_be_used(segment, home, name, data, said):
    if data is not None:
        Path(name).write_bytes(data)
    ended = segment(name, "--point", "3,3")
    assert ended.code == 3
    assert said in ended.error
    assert not Path("masks").exists()


def test_models_that_are_not_there_or_do_not_segment(darkroom, photo):
    assert darkroom("segment", photo, "--model", "nothing-like-it").code == 3
    ended = darkroom("segment", photo, "--model", "emoji")
    assert ended.code == 3
    assert "does not segment" in ended.error
    Path("none").mkdir()
    assert darkroom("segment", "none").code == 3


def test_names_of_files(home):
    Path("a").mkdir()
    for path in ("x.png", "a/x.png", "a/x.jpg", "y.z.png"):
        things.draw("red", "bar").save(path)
    found = named([Path("a"), Path("x.png"), Path("y.z.png"), Path("a/x.png")])
    assert list(found) == ["x", "x-2", "x-3", "y.z", "x-4"]
    assert target(Path("masks"), ("png",), 3) == (Path("masks"), "")
    assert target(Path("in/a.csv"), ("csv",), 3) == (Path("in"), "a.csv")
