"""Prompts to conditioning: against transformers and diffusers, and against the rules by hand."""

import dataclasses

import pytest
import torch

import oracles
from darkroom.errors import ModelMismatchError, PromptError
from darkroom.models.clip_text import CLIP_L, ClipTextModel, TextConfig
from darkroom.text.chunks import Chunker
from darkroom.text.encoder import PromptEncoder, TextOptions, Tower
from darkroom.text.prompt import Piece, parse_emphasis, sections
from darkroom.text.sizes import Sizes
from darkroom.text.tokenizer import Tokenizer
from darkroom.text.tokenizer_training import train_tokenizer
from darkroom.weights.layouts import clip_text

CAPTIONS = ["a red car", "a photo of a cat", "the cat is on a blue hill, in the sun, at sea"] * 3
PROMPTS = ["a photo of a cat", "", "A red car, in the Sun!!", "çà et là 猫"]
LONG = "a red car, " * 30 + "in the sun"


def pair(config: TextConfig, seed: int = 0):
    """transformers' tower and ours, with the same random weights."""
    theirs = oracles.randomize(oracles.text(config), seed)
    ours = ClipTextModel(config).eval()
    ours.load_state_dict(clip_text.HUGGINGFACE.convert(theirs.state_dict(), config))
    return theirs, ours.requires_grad_(False)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(CAPTIONS, 560)


@pytest.fixture(scope="module")
def bang(tokenizer):
    """The same vocabulary, padded with "!" as OpenCLIP's towers are."""
    return Tokenizer(tokenizer.vocab, tokenizer.merges, pad="!")


def config(tokenizer: Tokenizer, **changes) -> TextConfig:
    small = TextConfig(
        vocabulary=len(tokenizer), channels=32, layers=4, heads=4, hidden=64, end=tokenizer.eos
    )
    return dataclasses.replace(small, **changes)


@pytest.fixture(scope="module")
def sd1(tokenizer):
    return PromptEncoder([Tower(pair(config(tokenizer))[1], tokenizer)])


@pytest.fixture(scope="module")
def towers(tokenizer, bang):
    """The towers of an XL: two pairs of (theirs, ours)."""
    large = config(tokenizer, channels=40, heads=5, quick_gelu=False, projection=24, layers=5)
    return pair(config(tokenizer), 1), pair(large, 2)


@pytest.fixture(scope="module")
def xl(towers, tokenizer, bang):
    (_, first), (_, second) = towers
    return PromptEncoder(
        [Tower(first, tokenizer, -2, norm=False), Tower(second, bang, -2, norm=False)],
        size_channels=16,
        zero_unconditional=True,
    )


def opened(tokenizer: Tokenizer, folder):
    from transformers import CLIPTokenizer

    tokenizer.save(folder)
    return CLIPTokenizer.from_pretrained(folder)


def diffusers_sd(text_encoder, tokenizer):
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline(
        vae=None,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=None,
        scheduler=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


# --- short prompts: equal to the reference libraries


@pytest.mark.parametrize(
    ("pad", "gelu"), [("<|endoftext|>", True), ("!", False)], ids=["sd1", "sd2"]
)
@pytest.mark.parametrize("skip", [None, 1, 2])
def test_one_tower_equals_diffusers(tokenizer, tmp_path, pad, gelu, skip):
    own = Tokenizer(tokenizer.vocab, tokenizer.merges, pad=pad)
    theirs, ours = pair(config(own, quick_gelu=gelu))
    encoder = PromptEncoder([Tower(ours, own)], TextOptions(clip_skip=skip or 0))
    pipeline = diffusers_sd(theirs, opened(own, tmp_path))
    # diffusers 0.42 looks for the final norm where transformers 5 no longer has it
    object.__setattr__(theirs, "text_model", theirs)
    with torch.no_grad():
        expected, _ = pipeline.encode_prompt(PROMPTS, "cpu", 1, False, clip_skip=skip)
        actual = encoder(PROMPTS)
    assert actual.vector is None
    assert actual.text.shape == (4, 77, 32)
    assert oracles.largest(actual.text, expected) < 1e-5


def test_a_tower_with_a_layer_more_takes_the_penultimate(tokenizer, tmp_path):
    """SD 2's text tower as OpenCLIP stores it: 24 layers, of which the last is not used."""
    theirs, ours = pair(config(tokenizer, quick_gelu=False))
    ids = opened(tokenizer, tmp_path)(
        PROMPTS, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        output = theirs(ids.input_ids, output_hidden_states=True)
        expected = theirs.final_layer_norm(output.hidden_states[-2])
        actual = PromptEncoder([Tower(ours, tokenizer, layer=-2)])(PROMPTS)
    assert oracles.largest(actual.text, expected) < 1e-5


@pytest.mark.parametrize("skip", [None, 1])
def test_two_towers_equal_diffusers(towers, xl, tokenizer, bang, tmp_path, skip):
    from diffusers import StableDiffusionXLPipeline
    from diffusers.models.embeddings import Timesteps

    pipeline = StableDiffusionXLPipeline(
        vae=None,
        text_encoder=towers[0][0],
        text_encoder_2=towers[1][0],
        tokenizer=opened(tokenizer, tmp_path / "1"),
        tokenizer_2=opened(bang, tmp_path / "2"),
        unet=None,
        scheduler=None,
        add_watermarker=False,
    )
    encoder = xl.with_options(sizes=Sizes(original=(512, 640), crop=(8, 24)), clip_skip=skip or 0)
    with torch.no_grad():
        text, zeros, pooled, zero_pooled = pipeline.encode_prompt(PROMPTS, clip_skip=skip)
        numbers = torch.tensor([512, 640, 8, 24, 1024, 768], dtype=torch.float32)
        numbers = Timesteps(16, flip_sin_to_cos=True, downscale_freq_shift=0)(numbers).flatten()
        actual = encoder(PROMPTS, size=(1024, 768))
        without = encoder.unconditional((1024, 768))
    vector = torch.cat((pooled, numbers.expand(4, -1)), dim=1)
    assert actual.text.shape == (4, 77, 72)
    assert oracles.largest(actual.text, text) < 1e-5
    assert oracles.largest(actual.vector, vector) < 1e-5
    assert torch.equal(without.text, zeros[:1])
    assert torch.equal(without.vector[:, :24], zero_pooled[:1])
    assert oracles.largest(without.vector[0, 24:], numbers) < 1e-5


def test_the_size_is_needed_where_the_model_is_told_it(xl):
    with pytest.raises(ValueError, match="size=\\(height, width\\)"):
        xl(["a cat"])


def test_unconditional_is_the_empty_prompt_elsewhere(sd1):
    assert torch.equal(sd1.unconditional().text, sd1([""]).text)
    assert torch.equal(sd1.plan(None, 9).segments[0].parts[0].cond.text, sd1([""]).text)


@pytest.mark.slow
def test_full_size_clip_equals_transformers(tmp_path):
    """CLIP-L, 123 M parameters, with its own vocabulary."""
    tokenizer = Tokenizer.built_in()
    theirs, ours = pair(CLIP_L)
    prompts = [*PROMPTS, "A high tech solarpunk utopia in the Amazon rainforest, 4k (detailed)"]
    ids = opened(tokenizer, tmp_path)(
        prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        expected = theirs(ids).last_hidden_state
        actual = PromptEncoder([Tower(ours, tokenizer)])(prompts).text
    assert oracles.largest(actual, expected) < 1e-4


# --- chunks


def cut(tokenizer, text, positions=12, lookback=20, lengths=()):
    chunker = Chunker(tokenizer, positions, dict(lengths), lookback)
    return chunker(sections(parse_emphasis(text)))


def words(tokenizer, chunks):
    return [
        tokenizer.decode(chunk.ids[1 : 1 + chunk.tokens]).replace(" ,", ",") for chunk in chunks
    ]


def test_chunks_have_begin_end_and_padding(bang):
    (chunk,) = cut(bang, "a (red car:1.5)", positions=8)
    ids = bang.encode("a red car")
    assert chunk.ids == (bang.bos, *ids, bang.eos, *[bang.pad] * (6 - len(ids)))
    assert len(chunk.ids) == len(chunk.weights) == 8
    assert chunk.weights[:2] == (1.0, 1.0)
    assert set(chunk.weights[2 : 1 + len(ids)]) == {1.5}
    assert set(chunk.weights[1 + len(ids) :]) == {1.0}


def test_nothing_is_lost_in_chunks(tokenizer):
    for positions in (3, 5, 24, 77):
        for lookback in (0, 3, 20):
            chunks = cut(tokenizer, LONG, positions, lookback)
            ids = [n for chunk in chunks for n in chunk.ids[1 : 1 + chunk.tokens]]
            assert ids == tokenizer.encode(LONG)
            assert all(len(chunk.ids) == positions for chunk in chunks)
            assert all(chunk.tokens <= positions - 2 for chunk in chunks)


def test_a_chunk_ends_at_a_comma_where_one_is_near(tokenizer):
    text = "a a a a, a a a a a a a a"
    assert words(tokenizer, cut(tokenizer, text)) == ["a a a a,", "a a a a a a a a"]
    assert words(tokenizer, cut(tokenizer, text, lookback=0)) == ["a a a a, a a a a a", "a a a"]
    # the comma is 6 tokens back from the edge
    assert words(tokenizer, cut(tokenizer, text, lookback=5))[1] == "a a a"
    assert words(tokenizer, cut(tokenizer, text, lookback=6))[1] == "a a a a a a a a"


def test_a_comma_is_never_parted_from_nothing(tokenizer):
    assert words(tokenizer, cut(tokenizer, "a a a a a a a a a a, a")) == [
        "a a a a a a a a a a",
        ", a",
    ]
    assert words(tokenizer, cut(tokenizer, "a a a a a a a a a, a")) == ["a a a a a a a a a,", "a"]


def test_break_fills_the_chunk(tokenizer):
    assert words(tokenizer, cut(tokenizer, "a BREAK red BREAK BREAK car BREAK")) == [
        "a",
        "red",
        "",
        "car",
    ]
    assert len(cut(tokenizer, "")) == 1


def test_seventy_five_tokens_fit_into_one_chunk(tokenizer):
    assert len(cut(tokenizer, "a " * 75, 77)) == 1
    assert len(cut(tokenizer, "a " * 76, 77)) == 2


def test_long_prompts_are_the_towers_on_each_chunk(sd1, tokenizer):
    chunks = Chunker(tokenizer, 77, {})([[Piece(LONG, 1.0)]])
    assert len(chunks) > 1
    model = sd1.towers[0].model
    with torch.no_grad():
        each = [model(torch.tensor([chunk.ids])).last[0] for chunk in chunks]
        actual = sd1([LONG, "a cat"]).text
        empty = sd1([""]).text[0]
        short = sd1(["a cat"]).text[0]
    assert oracles.largest(actual[0], torch.cat(each)) < 1e-5
    assert oracles.largest(actual[1], torch.cat([short, *[empty] * (len(chunks) - 1)])) < 1e-5


def test_small_towers_have_small_chunks(tokenizer):
    small = config(tokenizer, positions=24)
    encoder = PromptEncoder([Tower(pair(small)[1], tokenizer)])
    assert encoder([LONG]).text.shape[1] % 24 == 0
    report = encoder.report(LONG)
    assert report.tokens == len(tokenizer.encode(LONG))
    assert report.capacity == 22 * report.chunks >= report.tokens


def test_towers_that_count_differently_get_equally_many_chunks(xl):
    """The second tokenizer reads "!!" as two padding tokens, the first as one token."""
    text = "a " * 74 + "!!"
    counts = [len(chunker([[Piece(text, 1.0)]])) for chunker in xl._chunkers()]
    assert counts == [1, 2] or counts == [2, 2]
    assert xl([text], (64, 64)).text.shape == (1, 154, 72)


def test_the_pooled_output_is_that_of_the_first_chunk(xl):
    long = xl(["a cat BREAK a red car", "a cat"], (64, 64))
    plan = xl.plan("a cat BREAK a red car", 4, (64, 64)).segments[0].parts[0].cond
    assert torch.equal(plan.vector[0], long.vector[1])
    assert not torch.equal(long.vector[0], long.vector[1])


# --- weights


def test_weights_multiply_and_the_mean_is_restored(sd1, tokenizer):
    plain = sd1(["a red car"]).text[0]
    weighted = sd1.plan("a (red:1.4) car", 1).segments[0].parts[0].cond.text[0]
    count = [len(tokenizer.encode(word)) for word in ("a", "red", "car")]
    weights = torch.ones(77)
    weights[1 + count[0] : 1 + count[0] + count[1]] = 1.4
    expected = plain * weights[:, None]
    assert oracles.largest(weighted, expected * plain.mean() / expected.mean()) < 1e-5
    assert weighted.mean() == pytest.approx(plain.mean().item(), rel=1e-4)
    raw = sd1.with_options(weighting="no_norm").plan("a (red:1.4) car", 1)
    assert oracles.largest(raw.segments[0].parts[0].cond.text[0], expected) < 1e-5


def test_a_prompt_without_weights_is_the_plain_prompt(sd1):
    assert torch.equal(plan_text(sd1, "a red car"), sd1(["a red car"]).text)
    assert torch.equal(plan_text(sd1, r"a \(red\) car"), sd1(["a (red) car"]).text)
    literal = sd1.with_options(weighting="none")
    assert torch.equal(plan_text(literal, "a (red) car"), sd1(["a (red) car"]).text)


def plan_text(encoder, prompt):
    return encoder.plan(prompt, 1).segments[0].parts[0].cond.text


def test_weights_of_zero_are_finite(sd1):
    assert plan_text(sd1, "(a red car:0)").isfinite().all()
    assert plan_text(sd1, "(" * 500 + "a red car").isfinite().all()
    whole = sd1.plan("(a:0)", 1).segments[0].parts[0].cond.text[0]
    assert (whole[1] == 0).all()


# --- time and AND


def test_segments_follow_the_schedule(sd1):
    plan = sd1.plan("a [red:blue:0.4] car AND [cat::6]:0.5", 10)
    assert [segment.until for segment in plan.segments] == [4, 6, 10]
    assert [[part.weight for part in segment.parts] for segment in plan.segments] == [[1, 0.5]] * 3
    said = [["a red car", "cat"], ["a blue car", "cat"], ["a blue car", ""]]
    for segment, texts in zip(plan.segments, said, strict=True):
        for part, text in zip(segment.parts, texts, strict=True):
            assert oracles.largest(part.cond.text, sd1([text]).text) < 1e-5


def test_equal_neighbours_are_one_segment(sd1):
    plan = sd1.plan("[a|a] cat [x:x:3]", 6)
    assert [segment.until for segment in plan.segments] == [6]


class Rows:
    """How many chunks a tower has encoded."""

    def __init__(self, tower):
        self.count = 0
        self.hook = tower.model.register_forward_pre_hook(self)

    def __call__(self, _, inputs):
        self.count += len(inputs[0])


def test_equal_texts_and_chunks_are_encoded_once(sd1):
    rows = Rows(sd1.towers[0])
    sd1.plan("[a|red] car", 50)
    assert rows.count == 2
    sd1(["a cat"] * 7 + ["a cat, " * 40])
    assert rows.count < 2 + 1 + 6
    before = rows.count
    sd1.plan("a cat AND a cat:2 AND (a cat:1.5)", 5)
    assert rows.count == before + 1
    rows.hook.remove()


def test_many_chunks_are_encoded_in_parts(sd1):
    prompts = [f"{'a ' * n} car" for n in range(40)]
    together = sd1(prompts).text
    assert oracles.largest(together[33], sd1([prompts[33]]).text[0]) < 1e-5


def test_loras_are_returned(sd1):
    plan = sd1.plan("a cat <lora:fox:0.5>", 3)
    assert [(r.name, r.unet, r.text) for r in plan.loras] == [("fox", 0.5, 0.5)]
    assert oracles.largest(plan.segments[0].parts[0].cond.text, sd1(["a cat "]).text) < 1e-5
    with pytest.raises(PromptError, match="'x' is no weight"):
        sd1.plan("a cat <lora:bad:x>", 3)


# --- textual inversion


def test_embeddings_take_the_place_of_tokens(sd1, tokenizer):
    vectors = torch.randn(2, 32, generator=torch.Generator().manual_seed(3))
    encoder = sd1.with_embeddings({"My-Cat": vectors})
    model = sd1.towers[0].model
    before = tokenizer.encode("a")
    after = tokenizer.encode("car")
    ids = torch.tensor(
        [[tokenizer.bos, *before, 0, 0, *after, tokenizer.eos]]
    )  # fmt: skip
    ids = torch.nn.functional.pad(ids, (0, 77 - ids.shape[1]), value=tokenizer.pad)
    embeds = model.token(ids)
    embeds[0, 1 + len(before) : 3 + len(before)] = vectors
    expected = model(ids, embeds).last
    assert oracles.largest(encoder(["a my-cat car"]).text, expected) < 1e-5
    assert oracles.largest(plan_text(encoder, "a MY-CAT car"), expected) < 1e-5
    assert encoder.report("a my-cat car, my-cats").embeddings == ("my-cat",)
    # a name inside a word, or an unknown one, is words
    assert torch.equal(encoder(["a my-cats"]).text, sd1(["a my-cats"]).text)
    assert torch.equal(encoder(["a his-cat"]).text, sd1(["a his-cat"]).text)
    # the encoder that it came from does not know it
    assert sd1.report("a my-cat car").embeddings == ()


def test_the_longest_name_wins_and_weights_apply(sd1):
    short, long = torch.randn(1, 32), torch.randn(3, 32)
    encoder = sd1.with_embeddings({"fox": short, "fox 2": long})
    assert encoder.report("fox 2, fox 1").embeddings == ("fox 2", "fox")
    chunks = encoder._chunkers()[0](sections(parse_emphasis("(fox 2:1.5)")))
    assert chunks[0].weights[:5] == (1.0, 1.5, 1.5, 1.5, 1.0)
    assert chunks[0].vectors == ((1, "fox 2", 0), (2, "fox 2", 1), (3, "fox 2", 2))


def test_an_embedding_is_not_parted(tokenizer):
    chunks = cut(tokenizer, "a a a a a a a a, vec a", lengths={"vec": 4})
    assert [len(chunk.vectors) for chunk in chunks] == [0, 4]
    with pytest.raises(PromptError, match="'vec' has 11 vectors, a chunk holds 10"):
        cut(tokenizer, "vec", lengths={"vec": 11})


def test_embeddings_of_two_towers(xl):
    both = (torch.randn(2, 32), torch.randn(2, 40))
    encoder = xl.with_embeddings({"thing": both})
    assert encoder(["a thing"], (64, 64)).text.shape == (1, 77, 72)
    with pytest.raises(ModelMismatchError, match="'thing' has vectors of shapes"):
        xl.with_embeddings({"thing": both[0]})
    with pytest.raises(ModelMismatchError, match="widths \\[32, 40\\]"):
        xl.with_embeddings({"thing": both[::-1]})


# --- reports and arguments


def test_report(sd1, tokenizer):
    report = sd1.report("a cat [red:blue:3] AND " + "a " * 80 + "<lora:x:1>")
    assert (report.tokens, report.chunks, report.capacity) == (80, 2, 150)
    assert report.texts == 3
    assert report.unknown == ()
    assert str(report) == "80 tokens of 150 in 2 chunk(s); 3 different texts; LoRAs: 'x'"
    assert sd1.plan("a cat [red:blue:3] AND " + "a " * 80 + "<lora:x:1>", 20).report == report


def test_unknown_characters_are_reported(tokenizer):
    known = {"a</w>": 0, "<|startoftext|>": 1, "<|endoftext|>": 2}
    own = Tokenizer(known, [], max_length=8)
    small = TextConfig(vocabulary=3, positions=8, channels=8, layers=1, heads=2, hidden=8, end=2)
    encoder = PromptEncoder([Tower(ClipTextModel(small), own)])
    assert encoder.report("a (猫:1.2) a").unknown == ("猫",)


def test_bad_arguments(sd1, tokenizer):
    with pytest.raises(ValueError, match="list of prompts"):
        sd1("a cat")
    with pytest.raises(ValueError, match="list of prompts"):
        sd1([])
    with pytest.raises(ValueError, match="at least one text tower"):
        PromptEncoder([])
    with pytest.raises(ValueError, match="weighting"):
        sd1.with_options(weighting="compel")
    with pytest.raises(TypeError):
        sd1.with_options(nothing=1)
    with pytest.raises(ValueError, match="allows at most 3"):
        sd1.with_options(clip_skip=4)(["a"])
    with pytest.raises(ModelMismatchError, match="vocabulary of 5"):
        Tower(ClipTextModel(config(tokenizer, vocabulary=5)), tokenizer)
    with pytest.raises(ValueError, match="layer is 0"):
        Tower(ClipTextModel(config(tokenizer)), tokenizer, layer=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(xl, dtype):
    import copy

    half = copy.deepcopy(xl).to(dtype)
    cond = half.plan("a (red:1.3) car", 2, (64, 64)).segments[0].parts[0].cond
    full = xl.plan("a (red:1.3) car", 2, (64, 64)).segments[0].parts[0].cond
    assert cond.text.dtype == cond.vector.dtype == dtype
    # measured: bfloat16 has 8 bits, and the features are of size 1
    assert oracles.largest(cond.text, full.text) < 0.1
    assert cond.text.isfinite().all()


def test_gradients_reach_the_towers_and_embeddings(tokenizer):
    vectors = torch.randn(1, 32, requires_grad=True)
    model = ClipTextModel(config(tokenizer))
    encoder = PromptEncoder([Tower(model, tokenizer)], embeddings={"thing": vectors})
    encoder(["a thing", "a car"]).text.square().sum().backward()
    assert vectors.grad is not None
    assert vectors.grad.abs().sum() > 0
    assert model.token.weight.grad is not None
