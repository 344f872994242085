import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import darkroom as dr
from darkroom.errors import CheckpointError, DarkroomError, ImageError, ModelMismatchError
from darkroom.models.autoencoder import Autoencoder, AutoencoderConfig
from darkroom.models.clip.network import Clip
from darkroom.models.clip.view import View
from darkroom.models.distilbert import DistilBertConfig
from darkroom.models.dual_encoder import DualEncoder, DualEncoderConfig
from darkroom.models.resnet import ResNetConfig
from darkroom.text.tokenizer import Tokenizer
from darkroom.text.wordpiece import WordPiece
from darkroom.vision.encoder import Encoder, open_encoder, squared, token_ids, trimmed
from darkroom.weights.layouts.clip import names
from darkroom.weights.locate import locate
from darkroom.weights.save import save
from vision import things
from weights.layouts import clips


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
        assert torch.allclose(before, after, atol=1e-5)
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


@pytest.mark.parametrize(("width", "height"), [(31, 47), (64, 33), (20, 90), (225, 224), (3, 3)])
def test_a_clip_s_view_is_that_of_transformers(width, height):
    from transformers import CLIPImageProcessorPil

    noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    for resample, name in ((3, "bicubic"), (2, "bilinear")):
        view = View(size=32, half="down", resample=name)
        size = {"height": 32, "width": 32}
        processor = CLIPImageProcessorPil(
            size={"shortest_edge": 32}, crop_size=size, resample=resample
        )
        theirs = processor(picture, return_tensors="pt")["pixel_values"]
        ours = view.normalised(view.pixels(picture)[None].float() / 255)
        assert torch.allclose(ours, theirs, atol=1e-5)
    squashed = replace(view, fit="squash").pixels(picture)
    assert squashed.shape == (3, 32, 32)


def test_a_very_long_strip_is_looked_at_in_its_middle():
    strip = Image.new("RGB", (400_001, 2), "red")
    strip.paste("blue", (199_900, 0, 200_100, 2))
    pixels = View(size=32).pixels(strip)
    assert pixels.shape == (3, 32, 32)
    assert (pixels[2] == 255).all()


def test_what_lies_behind_transparency_is_seen_by_public_clips_alone(tmp_path):
    picture = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    picture.save(tmp_path / "clear.png")
    public = Encoder(clips.drawn("vit"), Tokenizer.built_in(), 32)
    assert public.read(tmp_path / "clear.png").max() == 0
    assert things.encoder().read(tmp_path / "clear.png").min() == 255


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    """A folder as transformers writes it: a small CLIP with the whole vocabulary."""
    torch.manual_seed(5)
    config = replace(
        clips.CONFIGS["vit"], text=replace(clips.TEXT, vocabulary=49_408, positions=20, end=49_407)
    )
    encoder = Encoder(Clip(config).eval(), Tokenizer.built_in(), 32)
    return encoder.save(tmp_path_factory.mktemp("clip") / "model")


LABELS = ["a photo of a cat", "Two  dogs, running!", "naïve café", "x"]


def test_a_public_clip_equals_transformers(public):
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    pictures = [things.draw(colour, "bar", size=48) for colour in things.COLOURS]
    model = CLIPModel.from_pretrained(public).eval()
    words = CLIPTokenizer.from_pretrained(public)(
        LABELS, padding="max_length", max_length=20, return_tensors="pt"
    )
    pixels = CLIPImageProcessorPil.from_pretrained(public)(pictures, return_tensors="pt")
    with torch.no_grad():
        out = model(**words, **pixels)
    encoder = open_encoder(public, "cpu")
    assert torch.allclose(encoder.encode_image(pictures), out.image_embeds, atol=1e-5)
    assert torch.allclose(encoder.encode_text(LABELS), out.text_embeds, atol=1e-5)
    chances = encoder.probabilities(pictures, LABELS)
    assert torch.allclose(chances, out.logits_per_image.softmax(-1), atol=1e-5)
    assert encoder.scale == pytest.approx(1 / 0.07, rel=1e-4)
    again = encoder.save(public.parent / "again")
    assert torch.equal(open_encoder(again, "cpu").encode_text(LABELS), encoder.encode_text(LABELS))


def test_a_text_that_is_too_long_is_an_error(public):
    encoder = open_encoder(public, "cpu")
    encoder.encode_text("cat " * 18)
    with pytest.raises(ValueError, match=r"'cat cat.*: 21 tokens, and the model reads 20"):
        encoder.encode_text(["dog", "cat " * 19])


def test_the_tokenizer_is_the_one_beside_the_model_or_clip_s_own(public, tmp_path):
    encoder = open_encoder(public, "cpu")
    for name in ("one", "two"):
        save(encoder.model, tmp_path / name)  # no tokenizer
    assert torch.equal(
        open_encoder(tmp_path / "one", "cpu").encode_text(LABELS), encoder.encode_text(LABELS)
    )
    things.encoder().tokenizer.save(tmp_path / "two")
    with pytest.raises(CheckpointError, match="its tokenizer ends texts with"):
        open_encoder(tmp_path / "two", "cpu")
    save(clips.drawn("vit"), tmp_path / "three")
    with pytest.raises(CheckpointError, match="a vocabulary of 96 words, and no tokenizer"):
        open_encoder(tmp_path / "three", "cpu")


def test_an_archive_and_an_open_clip_file_are_opened(public, tmp_path):
    encoder = open_encoder(public, "cpu")
    state = names.OPENAI_LAYOUT.revert(encoder.model.state_dict(), encoder.model.config)
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="activation="):
        open_encoder(tmp_path / "other.pt", "cpu")
    one = open_encoder(tmp_path / "other.pt", "cpu", activation="quick_gelu")
    two = open_encoder(clips.archive(state, tmp_path / "openai.pt"), "cpu")
    words = encoder.encode_text(LABELS)
    assert torch.allclose(one.encode_text(LABELS), words, atol=1e-5)
    assert torch.allclose(two.encode_text(LABELS), words, atol=5e-3)  # half precision


def test_the_golden_numbers_of_openai_s_vit(data):
    """OpenAI's own example; only where the weights are, which Darkroom does not come with."""
    for name in ("ViT-B-32.pt", "~/.cache/clip/ViT-B-32.pt", "openai/clip-vit-base-patch32"):
        with contextlib.suppress(DarkroomError):
            found = locate(name).path
            break
    else:
        pytest.skip("no ViT-B-32.pt, and openai/clip-vit-base-patch32 is not in the cache")
    encoder = open_encoder(found, "cpu")
    picture = data / "seed_inputs" / "CLIP.png"
    chances = encoder.probabilities(picture, ["a diagram", "a dog", "a cat"])
    wanted = torch.tensor([[0.99279356, 0.00421069, 0.00299575]])
    assert torch.allclose(chances, wanted, atol=1e-3)


def test_without_a_name_it_is_the_built_in_one():
    encoder = open_encoder()
    assert encoder.name == "emoji-clip"
