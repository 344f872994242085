"""Prompts that would take very long, or very much memory, are refused before they do."""

import pytest

from darkroom.errors import PromptError
from darkroom.models.clip_text import ClipTextModel, TextConfig
from darkroom.text.encoder import MOST_SIDES, PromptEncoder, Tower
from darkroom.text.prompt import LONGEST
from darkroom.text.tokenizer_training import train_tokenizer


@pytest.fixture(scope="module")
def encoder():
    tokenizer = train_tokenizer(["a red car", "a blue cat"], 520)
    size = len(tokenizer)
    config = TextConfig(
        vocabulary=size, positions=16, channels=8, layers=1, heads=1, hidden=8, end=tokenizer.eos
    )
    model = ClipTextModel(config).eval().requires_grad_(False)
    return PromptEncoder([Tower(model, tokenizer)])


@pytest.mark.parametrize(
    "prompt",
    [
        "AND " * 3_000,
        "a AND " * 8_000,
        "BREAK " * 8_000,
        "a BREAK " * 6_000,
        "car " * 10_000,
        "[a|b]" * 9_000,
        "[a car :b:3] " * 3_500,
        "[a|b" * 5_000 + "]" * 5_000,
        "(car :1.1) " * 4_500,
        "x" * (LONGEST + 1),
        "(" * 100_000,
    ],
)
def test_refused(encoder, prompt):
    for call in (encoder.plan, encoder.report):
        with pytest.raises(PromptError) as caught:
            call(prompt, 1000)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 200


def test_what_people_write_is_not(encoder):
    sides = " AND ".join(["a car"] * MOST_SIDES)
    assert len(encoder.plan(sides, 10).segments[0].parts) == MOST_SIDES
    assert encoder.plan("[a|b] car [cat:car:0.5]" * 5, 50).report.texts > 2
    assert encoder.report("a red car, " * 100).chunks > 20
    assert encoder.report("[" * 20_000 + "a|b" + "]" * 20_000).texts == 2
    assert encoder.report("([" * 20_000).texts == 1
    assert encoder.report("(" * 20_000 + "car" + ")" * 20_000).tokens
