import pytest
import torch
from PIL import Image

import darkroom as dr
from darkroom.errors import CheckpointError, ImageError, ModelMismatchError
from darkroom.models.autoencoder import Autoencoder, AutoencoderConfig
from darkroom.models.distilbert import DistilBertConfig
from darkroom.models.dual_encoder import DualEncoder, DualEncoderConfig
from darkroom.models.resnet import ResNetConfig
from darkroom.text.wordpiece import WordPiece
from darkroom.vision.encoder import Encoder, open_encoder, squared, token_ids, trimmed
from vision import things


@pytest.fixture
def book():
    """The book's dual encoder, tiny."""
    tokenizer = WordPiece.train(["a red square", "the blue bar"] * 3, 100)
    config = DualEncoderConfig(
        image=ResNetConfig(channels=4, blocks=(1, 1)),
        text=DistilBertConfig(
            vocabulary=len(tokenizer), positions=12, channels=8, layers=1, heads=2, hidden=16
        ),
        projection=8,
    )
    torch.manual_seed(0)
    return Encoder(DualEncoder(config).eval(), tokenizer, 32, crop=False)


@pytest.fixture(params=["own", "book"])
def encoder(request):
    return things.encoder() if request.param == "own" else request.getfixturevalue("book")


def test_unit_vectors_of_pictures_and_sentences(encoder):
    pixels = torch.stack([encoder.read(things.draw(c, "bar")) for c in things.COLOURS])
    image = encoder.images(pixels)
    text = encoder.texts(["a red square", "", "the bar " * 50])
    for vectors in (image, text):
        assert vectors.shape == (3, 8)
        assert torch.allclose(vectors.norm(dim=-1), torch.ones(3), atol=1e-5)
    alone = encoder.texts(["a red square"])
    assert torch.allclose(alone[0], text[0], atol=1e-5)  # the others' padding changes nothing


def test_saved_and_opened(encoder, tmp_path):
    folder = encoder.save(tmp_path / "model")
    again = open_encoder(folder, "cpu")
    assert (again.size, again.crop) == (encoder.size, encoder.crop)
    assert type(again.model) is type(encoder.model)
    picture = things.draw("blue", "cross")
    pairs = (
        (encoder.images(encoder.read(picture)[None]), again.images(again.read(picture)[None])),
        (encoder.texts(["a blue bar"]), again.texts(["a blue bar"])),
    )
    for before, after in pairs:
        assert torch.allclose(before, after, atol=1e-6)
    encoder.save(folder)  # once more, over itself


def test_other_models_are_refused_in_one_line(tmp_path, encoder):
    vae = Autoencoder(AutoencoderConfig(channels=(8, 8), blocks=1, groups=4, latent_channels=4))
    dr.save(vae, tmp_path / "vae")
    with pytest.raises(ModelMismatchError, match="darkroom train clip"):
        open_encoder(tmp_path / "vae")
    folder = encoder.save(tmp_path / "model")
    (folder / "view.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"view\.json"):
        open_encoder(folder)
    (folder / "tokenizer").rename(folder / "words")
    with pytest.raises(CheckpointError, match="tokenizer"):
        open_encoder(folder)


def test_cut_or_squeezed(tmp_path):
    picture = Image.new("RGB", (64, 32), "white")
    picture.paste((0, 0, 0), (16, 0, 48, 32))
    path = tmp_path / "wide.jpg"
    picture.save(path, quality=100)
    for source in (picture, path):
        cut, whole = squared(source, 16), squared(source, 16, crop=False)
        assert cut.shape == whole.shape == (3, 16, 16)
        assert cut[:, :, 2:-2].max() < 30
        assert whole[:, :, :2].min() > 225
        assert whole[:, :, 6:10].max() < 30


def test_a_bad_picture_is_named(tmp_path):
    path = tmp_path / "bad.png"
    things.draw("red", "bar").save(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ImageError, match=r"bad\.png"):
        squared(path, 8)


def test_token_ids_begin_and_end():
    encoder = things.encoder()
    tokenizer = encoder.tokenizer
    ids = token_ids(tokenizer, ["a red bar", "", "bar " * 40], 10)
    assert ids.shape == (3, 10)
    assert (ids[:, 0] == tokenizer.bos).all()
    assert (ids[:, -1] == tokenizer.eos).all()
    assert ids[1].tolist() == [tokenizer.bos] + [tokenizer.eos] * 9
    short = trimmed(ids[:2], tokenizer.eos)
    assert short.shape[1] < 10
    assert (short[:, -1] == tokenizer.eos).all()


def test_cosines_and_probabilities(encoder, tmp_path):
    pictures = [things.draw(colour, "bar") for colour in things.COLOURS]
    path = tmp_path / "bar.png"
    pictures[0].save(path)
    labels = ["a red square", "the blue bar"]
    cosines = encoder.similarity([path, *pictures[1:]], labels)
    assert cosines.shape == (3, 2)
    assert torch.allclose(cosines[:1], encoder.similarity(pictures[0], labels), atol=1e-5)
    assert torch.allclose(cosines, encoder.encode_image(pictures) @ encoder.encode_text(labels).T)
    assert encoder.encode_text("a red square").shape == (1, 8)
    chances = encoder.probabilities(pictures, labels)
    assert torch.allclose(chances, (encoder.scale * cosines).softmax(-1), atol=1e-4)
    assert encoder.scale == pytest.approx(8 if encoder.size == 32 else 1 / 0.07, rel=1e-4)


def test_nothing_to_encode_is_an_error(encoder):
    with pytest.raises(ValueError, match="no pictures"):
        encoder.encode_image([])
    with pytest.raises(ValueError, match="no texts"):
        encoder.similarity(things.draw("red", "bar"), [])
