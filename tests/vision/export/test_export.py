"""Masks as files of others: what pycocotools, Label Studio and YOLO read is what was found."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from scipy import ndimage

from cases import quick
from darkroom.errors import DataError
from darkroom.masks import Mask
from darkroom.names import EXPORT_NAMES
from darkroom.vision.export import brush, writer
from darkroom.vision.export.coco import coco, read_coco, rings
from darkroom.vision.export.label_studio import interface, read_tasks, tasks
from darkroom.vision.export.records import Pictured, Record
from darkroom.vision.export.writing import WRITERS, label_map
from darkroom.vision.export.yolo import label_lines, read_labels

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
VECTOR = Path(__file__).parents[2] / "vectors" / "label_studio_brush.json"


def blob(seed, height=120, width=160):
    """A region of any form, with parts and holes."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.standard_normal((height, width)), rng.uniform(2, 12))
    return noise > noise.std() * rng.uniform(-0.2, 1)


def found(seed=0):
    """Two pictures, masks of three classes; a tiny one, a ring, one of a single pixel."""
    first = Pictured("street/truck", "street/truck.jpg", (120, 160))
    second = Pictured("cat", "cat.png", (40, 30))
    first.add(Mask(blob(seed), score=0.91, source="emoji-sam: point 3,4", label="truck"))
    first.add(Mask(blob(seed + 1), score=0.5))
    ring = np.zeros((40, 30), bool)
    ring[5:20, 5:20], ring[9:14, 9:14] = True, False
    second.add(Mask(ring, label="cat & dog"))
    dot = np.zeros((40, 30), bool)
    dot[39, 29] = True
    second.add(Mask(dot, label="truck"))
    return [first, second]


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def same(before, after):
    """Every mask is there again, exactly."""
    for one, other in zip(before, after, strict=True):
        assert (one.name, one.file, one.size) == (other.name, other.file, other.size)
        for a, b in zip(one.records, other.records, strict=True):
            assert np.array_equal(a.mask.values, b.mask.values)
            assert (a.box, a.area, a.score, a.label) == (b.box, b.area, b.score, b.label)


@pytest.mark.parametrize("polygons", [False, True])
def test_coco_s_own_reader(tmp_path, polygons, capsys):
    pictures = found()
    out = writer("coco-polygons" if polygons else "coco", tmp_path)
    for picture in pictures:
        out.done(picture)
    out.close()
    (path,) = out.files
    theirs = COCO(path)
    assert [image["file_name"] for image in theirs.loadImgs([1, 2])] == [p.file for p in pictures]
    assert [c["name"] for c in theirs.loadCats([1, 2, 3])] == ["truck", "object", "cat & dog"]
    annotations = theirs.loadAnns(theirs.getAnnIds())
    records = [record for picture in pictures for record in picture.records]
    for record, annotation in zip(records, annotations, strict=True):
        overlap = iou(theirs.annToMask(annotation).astype(bool), record.mask.values)
        assert overlap >= 0.99 if polygons else overlap == 1
        assert annotation["area"] == record.area
        left, top, right, bottom = record.box
        assert annotation["bbox"] == [left, top, right - left, bottom - top]
        kind = list if polygons else dict
        assert isinstance(annotation["segmentation"], kind)
    results = theirs.loadRes(annotations)
    assert len(results.anns) == 4
    read = read_coco(json.loads(path.read_text()))
    if polygons:
        assert [p.file for p in read] == [p.file for p in pictures]
    else:
        same(pictures, read)
    capsys.readouterr()


@pytest.mark.parametrize("seed", quick(range(0, 30, 5), range(30)))
def test_outlines_keep_99_percent(seed):
    """As COCO fills them, as YOLO's line, as Label Studio's percentages."""
    values = blob(seed, 40 + 9 * seed, 230 - 6 * seed)
    height, width = values.shape
    picture = Pictured("a", "a.png", (height, width))
    record = picture.add(Mask(values))
    flat = [ring.ravel().tolist() for ring in rings(record)]
    united = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, height, width)))
    assert iou(united.astype(bool), values) >= 0.99
    line = label_lines(picture, {})
    assert line.startswith("0 ") and line.count("\n") == 1
    assert iou(read_labels(line, picture.size)[0].values, values) >= 0.99
    shares = np.array(line.split()[1:], float).reshape(-1, 2) * (width, height)
    tied = coco_mask.decode(coco_mask.frPyObjects([shares.ravel().tolist()], height, width))
    assert iou(tied[..., 0].astype(bool), values) >= 0.99
    (again,) = read_tasks(json.loads(json.dumps(tasks([picture]))))
    assert iou(again.records[0].mask.values, values) >= 0.99


@pytest.mark.parametrize("seed", range(6))
def test_brushes_there_and_back(seed):
    values = blob(seed, 30 + seed, 400)  # runs of more than 65,536 bytes as well
    if seed > 3:
        values[:] = seed == 4
    packed = brush.pack(Mask(values))
    assert all(0 <= byte <= 255 for byte in packed)
    assert np.array_equal(brush.unpack(packed, values.shape).values, values)
    assert Mask(np.ones((300, 300), bool)).iou(
        brush.unpack(brush.pack(Mask(np.ones((300, 300), bool))), (300, 300))
    )


def test_brushes_of_label_studio_itself():
    """Packed by label-studio-sdk 2.1.2 from our mask; and ours, which it unpacked to the same."""
    vector = json.loads(VECTOR.read_text())
    mask = Mask.from_rle(vector["mask"])
    theirs = brush.unpack(vector["packed by label-studio-sdk"], mask.values.shape)
    assert np.array_equal(theirs.values, mask.values)
    assert brush.pack(mask) == vector["unpacked by label-studio-sdk"]


@pytest.mark.parametrize("data", [[], [300], [0] * 40, [0, 0, 1], ["a"]])
def test_damaged_brushes(data):
    with pytest.raises(DataError, match="brush"):
        brush.unpack(data, (8, 8))


def test_label_studio_tasks():
    pictures = found()
    content = json.loads(json.dumps(tasks(pictures, brush=True)))
    same(pictures, read_tasks(content))
    first = content[0]["predictions"][0]["result"][0]
    assert content[0]["data"]["image"] == "/data/local-files/?d=street/truck.jpg"
    assert (first["original_width"], first["original_height"]) == (160, 120)
    assert first["value"]["brushlabels"] == ["truck"]
    assert first["score"] == 0.91
    for polygons in tasks(pictures):
        for result in polygons["predictions"][0]["result"]:
            points = np.array(result["value"]["points"])
            assert len(points) >= 3
            assert points.min() >= 0 and points.max() <= 100
    xml = interface(["cat & dog"])
    assert 'value="cat &amp; dog"' in xml and '<PolygonLabels name="label" toName="image">' in xml
    address = Pictured("a", "https://example.org/a.png", (4, 4))
    assert tasks([address])[0]["data"]["image"] == "https://example.org/a.png"
    assert read_tasks(tasks([address])) == []  # nothing found, so no size


def test_yolo_folder(tmp_path):
    picture, second = found()
    (tmp_path / "cat.png").write_bytes(b"the picture")
    second = Pictured(second.name, str(tmp_path / "cat.png"), second.size, second.records)
    out = writer("yolo", tmp_path / "out")
    out.done(picture)
    out.done(second)
    out.close()
    labels = (tmp_path / "out/labels/street/truck.txt").read_text()
    names = (tmp_path / "out/classes.txt").read_text().splitlines()
    assert names == ["truck", "object", "cat & dog"]
    masks = read_labels(labels, picture.size, names)
    assert [mask.label for mask in masks] == ["truck", ""]
    assert (tmp_path / "out/images/cat.png").read_bytes() == b"the picture"
    assert not (tmp_path / "out/images/street").exists()  # not a file here
    yaml = (tmp_path / "out/data.yaml").read_text()
    assert yaml.startswith("train: images\n") and '  2: "cat & dog"\n' in yaml
    with pytest.raises(ValueError, match="give a folder"):
        writer("yolo", tmp_path, "a.txt")


def test_pictures_and_maps(tmp_path):
    picture = Pictured("a", "a.jpg", (120, 160))
    out = writer("png", tmp_path)
    masks = [Mask(blob(0)), Mask(blob(1))]
    for mask in masks:
        picture.add(mask)
        out.found(picture, mask)  # each at once
        with Image.open(out.files[-1]) as written:
            assert np.array_equal(Mask.from_image(written).values, mask.values)
    assert [path.name for path in out.files] == ["0001.png", "0002.png"]
    out = writer("png", tmp_path, "one.png")
    out.found(picture, masks[1])
    assert [path.name for path in out.files] == ["one-2.png"]
    drawn = label_map(picture)
    assert drawn.mode == "P"
    numbers = np.asarray(drawn)
    small, large = sorted((0, 1), key=lambda i: masks[i].area)
    assert np.array_equal(numbers == small + 1, masks[small].values)
    assert np.array_equal(numbers > 0, masks[0].values | masks[1].values)
    assert ((numbers == large + 1) <= masks[large].values).all()
    many = Pictured("a", "a.jpg", (120, 160), picture.records * 200)
    assert np.asarray(label_map(many)).max() > 255


def test_tables_and_run_lengths(tmp_path):
    pictures = found()
    out = writer("csv", tmp_path)
    for picture in pictures:
        out.done(picture)
    out.close()
    with open(tmp_path / "masks.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    records = [record for picture in pictures for record in picture.records]
    for row, record in zip(rows, records, strict=True):
        size, counts = row["rle"].split(":", 1)
        rle = {"size": [int(n) for n in size.split("x")], "counts": counts}
        assert np.array_equal(Mask.from_rle(rle).values, record.mask.values)
        assert int(row["area"]) == record.area
        assert row["label"] == record.label
    out = writer("rle", tmp_path)
    out.done(pictures[0])
    content = json.loads((tmp_path / "street/truck.json").read_text())
    assert (content["width"], content["height"]) == (160, 120)
    for fields, record in zip(content["masks"], pictures[0].records, strict=True):
        assert Record.read(fields) == record


def test_nothing_is_half_written(tmp_path, monkeypatch):
    out = writer("coco", tmp_path)
    out.done(found()[0])
    out.close()
    before = (tmp_path / "annotations.json").read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        out.close()
    assert (tmp_path / "annotations.json").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_what_cannot_be_written():
    picture = Pictured("a", "a.jpg", (4, 5))
    with pytest.raises(ValueError, match="without a pixel"):
        picture.add(Mask(np.zeros((4, 5), bool)))
    with pytest.raises(ValueError, match="mask of 4x5 in a picture of 5x4"):
        picture.add(Mask(np.ones((5, 4), bool)))
    with pytest.raises(ValueError, match="did you mean 'coco'"):
        writer("cocoo", Path())
    assert tuple(WRITERS) == EXPORT_NAMES


@pytest.mark.parametrize(
    ("read", "content"),
    [
        (read_coco, {"images": [{"id": 1}]}),
        (read_coco, coco([]) | {"annotations": [{"image_id": 3}]}),
        (read_tasks, [{"data": {}}, 3]),
        (read_tasks, [{"data": {"image": "a"}, "predictions": [{"result": [{"type": "x"}, 3]}]}]),
        (lambda text: read_labels(text, (4, 4)), "0 1 2 3 4\n"),
        (lambda text: read_labels(text, (4, 4)), "0 0.1 0.1 0.5\n"),
        (lambda text: read_labels(text, (4, 4)), "7 0 0 1 1 1 0\n"),
        (Record.read, {"area": 4}),
    ],
)
def test_what_cannot_be_read(read, content):
    with pytest.raises(DataError):
        read(content)
