import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from darkroom.vision import classify as c
from vision import things

LABELS = ("red", "green bar", "blue cross")


@pytest.fixture(scope="module")
def encoder():
    return things.encoder()


def test_a_label_is_the_mean_of_its_templates(encoder):
    templates = ("a {}", "the {} .", "{}")
    vectors = c.label_vectors(encoder, LABELS, templates)
    assert vectors.shape == (3, 8)
    one = encoder.encode_text(["a green bar", "the green bar .", "green bar"]).mean(0)
    assert torch.allclose(vectors[1], F.normalize(one, dim=0), atol=1e-5)
    alone = c.label_vectors(encoder, [" red "], "{}")
    assert torch.allclose(alone, encoder.encode_text("red"), atol=1e-5)


def test_probabilities_are_the_encoder_s(encoder):
    pictures = [things.draw(colour, "bar") for colour in things.COLOURS]
    found = list(c.classify(encoder, pictures, LABELS, templates=["{}"], top=9, batch=2))
    expected = encoder.probabilities(pictures, LABELS)
    cosines = encoder.similarity(pictures, LABELS)
    for one, row, cosine in zip(found, expected, cosines, strict=True):
        order = row.argsort(descending=True).tolist()
        assert [label.name for label in one.labels] == [LABELS[i] for i in order]
        for label, i in zip(one.labels, order, strict=True):
            assert label.probability == pytest.approx(row[i].item(), abs=1e-5)
            assert label.cosine == pytest.approx(cosine[i].item(), abs=1e-5)
    top = list(c.classify(encoder, pictures[:1], c.open_labels(encoder, LABELS, ["{}"]), top=2))
    assert [label.name for label in top[0].labels] == [label.name for label in found[0].labels[:2]]


def test_bad_pictures_have_a_problem(encoder, tmp_path):
    things.draw("red", "bar").save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    images = [tmp_path / "bad.png", tmp_path / "good.png", tmp_path / "nothing.png"]
    found = list(c.classify(encoder, images, LABELS))
    assert [bool(one.problem) for one in found] == [True, False, True]
    assert "bad.png" in found[0].problem
    assert len(found[1].labels) == 3
    assert [one.image for one in found] == images


def test_pictures_of_every_kind(encoder, tmp_path):
    """The same label for a picture, however it is stored; and what is too large is said."""
    whole = things.draw("red", "bar")
    whole.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    whole.quantize().save(tmp_path / "palette.png")
    turned = whole.rotate(90)
    exif = turned.getexif()
    exif[0x0112] = 6  # turn it by 90 degrees to the right
    turned.save(tmp_path / "turned.png", exif=exif)
    images = [whole, *sorted(tmp_path.iterdir())]
    first, *others = c.classify(encoder, images, LABELS)
    for one in others:
        assert not one.problem
        for label, expected in zip(one.labels, first.labels, strict=True):
            assert label.name == expected.name
            assert label.probability == pytest.approx(expected.probability, abs=0.02)
    grey = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    Image.fromarray(grey).save(tmp_path / "16 bits.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    Image.new("1", (20_000, 20_000)).save(tmp_path / "large.png")
    names = ("16 bits.png", "dot.png", "large.png")
    found = list(c.classify(encoder, [tmp_path / name for name in names], LABELS))
    assert [bool(one.problem) for one in found] == [False, False, True]
    assert "50 million pixels" in found[2].problem


@pytest.mark.parametrize(
    ("labels", "templates", "said"),
    [
        ([], ["{}"], "no labels"),
        (["a", " "], ["{}"], "label 2 of 2 is empty"),
        (["a", "b", "a "], ["{}"], "'a' is given more than once"),
        ("abc", ["{}"], "a list"),
        (["a"], [], "no templates"),
        (["a"], ["a photo"], "expected one {}"),
        (["a"], ["{} and {}"], "expected one {}"),
        (["a"], ["photoz"], "plain, photo"),
    ],
)
def test_what_is_not_accepted(encoder, labels, templates, said):
    with pytest.raises(ValueError, match=said):
        c.classify(encoder, [], labels, templates=templates)


def test_sets_of_templates_have_names(encoder):
    assert c.check_templates("photo") == ["a photo of a {}"]
    several = c.check_templates(["drawings", "the {}"])
    assert len(several) == len(c.ENSEMBLES["drawings"]) + 1
    assert all(text.count("{}") == 1 for texts in c.ENSEMBLES.values() for text in texts)
    assert torch.isfinite(c.label_vectors(encoder, LABELS, ["photos"])).all()


def test_accuracy_and_confusion():
    probabilities = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.2, 0.5, 0.3]])
    truth = torch.tensor([0, 1, 2])
    assert c.accuracy(probabilities, truth) == pytest.approx(1 / 3)
    assert c.accuracy(probabilities, truth, 2) == 1
    assert c.accuracy(probabilities, truth, 5) == 1
    table = c.confusion(truth, probabilities.argmax(1), 3)
    assert table.tolist() == [[1, 0, 0], [0, 0, 1], [0, 1, 0]]
