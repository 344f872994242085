"""The prompt language: A1111's published cases, random prompts with known meaning, random noise."""

import contextlib
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bounded import guarded, lines_run
from cases import quick
from darkroom.errors import PromptError
from darkroom.text import prompt as language
from darkroom.text.prompt import (
    BREAK,
    Piece,
    Subprompt,
    check_text,
    extract_hypernetworks,
    extract_loras,
    format_emphasis,
    parse_emphasis,
    parse_parts,
    parse_schedule,
    sections,
)
from darkroom.weights.adapters.embeddings import is_mentioned

# The published cases of A1111's prompt_parser, as facts: input, output.
EMPHASIS = {
    "normal text": [("normal text", 1.0)],
    "an (important) word": [("an ", 1.0), ("important", 1.1), (" word", 1.0)],
    "(unbalanced": [("unbalanced", 1.1)],
    r"\(literal\]": [("(literal]", 1.0)],
    "(unnecessary)(parens)": [("unnecessaryparens", 1.1)],
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).": [
        ("a ", 1.0),
        ("house", 1.5730000000000004),
        (" ", 1.1),
        ("on", 1.0),
        (" a ", 1.1),
        ("hill", 0.55),
        (", sun, ", 1.1),
        ("sky", 1.4641000000000006),
        (".", 1.1),
    ],
}
SCHEDULES = {  # in 10 steps
    "test": [(10, "test")],
    "a [b:3]": [(3, "a "), (10, "a b")],
    "a [b: 3]": [(3, "a "), (10, "a b")],
    "a [[[b]]:2]": [(2, "a "), (10, "a [[b]]")],
    "[(a:2):3]": [(3, ""), (10, "(a:2)")],
    "a [b : c : 1] d": [(1, "a b  d"), (10, "a  c  d")],
    "a[b:[c:d:2]:1]e": [(1, "abe"), (2, "ace"), (10, "ade")],
    "a [unbalanced": [(10, "a [unbalanced")],
    "a [b:.5] c": [(5, "a  c"), (10, "a b c")],
    "a [{b|d{:.5] c": [(5, "a  c"), (10, "a {b|d{ c")],
    "((a][:b:c [d:3]": [(3, "((a][:b:c "), (10, "((a][:b:c d")],
    "[a|(b:1.1)]": [(n, "a" if n % 2 else "(b:1.1)") for n in range(1, 11)],
    "[fe|]male": [(n, "female" if n % 2 else "male") for n in range(1, 11)],
    "[fe|||]male": [(n, "female" if n % 4 == 1 else "male") for n in range(1, 11)],
}
EXAMPLE = (
    "fantasy landscape with a [mountain:lake:0.25] and [an oak:a christmas tree:0.75]"
    "[ in foreground::0.6][ in background:0.25] [shoddy:masterful:0.5]"
)


@pytest.mark.parametrize("text", EMPHASIS)
def test_published_emphasis(text):
    assert parse_emphasis(text) == EMPHASIS[text]


@pytest.mark.parametrize("text", SCHEDULES)
def test_published_schedules(text):
    assert parse_schedule(text, 10) == SCHEDULES[text]


def test_published_example():
    start = "fantasy landscape with a "
    assert parse_schedule(EXAMPLE, 100) == [
        (25, start + "mountain and an oak in foreground shoddy"),
        (50, start + "lake and an oak in foreground in background shoddy"),
        (60, start + "lake and an oak in foreground in background masterful"),
        (75, start + "lake and an oak in background masterful"),
        (100, start + "lake and a christmas tree in background masterful"),
    ]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", [("", 1.0)]),
        ("()", [("", 1.0)]),
        ("(a:0)", [("a", 0.0)]),
        ("(a:-1.5)", [("a", -1.5)]),
        ("(a: 1.5 )", [("a", 1.5)]),
        ("(a:1.2.3)", [("a:1.2.3", 1.1)]),
        ("(a:b)", [("a:b", 1.1)]),
        ("a:1.3)", [("a:1.3)", 1.0)]),
        ("a)b]", [("a)b]", 1.0)]),
        (r"(a\:1.3)", [("a:1.3", 1.1)]),
        (r"\\", [("\\", 1.0)]),
        ("\\", [("\\", 1.0)]),
        ("([a)b]c", [("a", 1.0), ("b", 1 / 1.1), ("c", 1.0)]),
        ("(" * 400 + "a", [("a", 1e6)]),
    ],
)
def test_emphasis(text, pieces):
    assert parse_emphasis(text) == pieces


def test_break_ends_a_section():
    pieces = parse_emphasis("a  BREAK b (c BREAK d:1.5)BREAK BREAKs")
    assert [p for p in pieces if p is BREAK] == [BREAK] * 3
    assert sections(pieces) == [
        [("a", 1.0)],
        [("b ", 1.0), ("c", 1.5)],
        [("d", 1.5)],
        [("BREAKs", 1.0)],
    ]
    assert parse_emphasis(r"a \BREAK b") == [("a BREAK b", 1.0)]
    assert parse_emphasis("(BREAK:-1)")[0] is BREAK
    assert sections(parse_emphasis("BREAK BREAK")) == [[], [], []]


@pytest.mark.parametrize(
    ("text", "steps", "expected"),
    [
        ("[a:b:0]", 10, [(10, "b")]),
        ("[a:b:-3]", 10, [(10, "b")]),
        ("[a:b:1.0]", 10, [(10, "a")]),
        ("[a:b:20]", 10, [(10, "a")]),
        ("[a:b:0.04]", 10, [(10, "b")]),
        ("[a::4]b", 10, [(4, "ab"), (10, "b")]),
        ("[a:b:c:4]", 10, [(10, "[a:b:c:4]")]),
        ("[a:b:c]", 10, [(10, "[a:b:c]")]),
        ("[a:b:1e999]", 10, [(10, "a")]),
        (r"[a\:b:2]", 4, [(2, ""), (4, r"a\:b")]),
        (r"\[a:b:2]", 4, [(4, r"\[a:b:2]")]),
        ("[a|b]", 1, [(1, "a")]),
        ("[[x|y]:z:2]", 4, [(1, "x"), (2, "y"), (3, "z"), (4, "z")]),
        ("(a [b:2]", 4, [(2, "(a "), (4, "(a b")]),
        ("[a (b:2]", 4, [(4, "[a (b:2]")]),
        ("a|b", 4, [(4, "a|b")]),
    ],
)
def test_schedules(text, steps, expected):
    assert parse_schedule(text, steps) == expected


def test_a_schedule_needs_a_step():
    with pytest.raises(ValueError, match="at least 1"):
        parse_schedule("a", 0)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a cat", [("a cat", 1.0)]),
        ("at 12:30", [("at 12:30", 1.0)]),
        ("a AND b", [("a", 1.0), ("b", 1.0)]),
        ("a :1.2 AND b: -0.5 AND c", [("a", 1.2), ("b", -0.5), ("c", 1.0)]),
        ("(a:1.3) AND BAND sand", [("(a:1.3)", 1.0), ("BAND sand", 1.0)]),
        ("AND", [("", 1.0), ("", 1.0)]),
    ],
)
def test_parts(text, parts):
    assert parse_parts(text) == [Subprompt(*part) for part in parts]


def test_loras():
    text = "a <lora:fox:0.5>b<lora:two words> <lora:c:1:-.25><lyco:d:2>"
    rest, loras = extract_loras(text)
    assert rest == "a b "
    assert [(r.name, r.text, r.unet) for r in loras] == [
        ("fox", 0.5, 0.5),
        ("two words", 1.0, 1.0),
        ("c", 1.0, -0.25),
        ("d", 2.0, 2.0),
    ]
    assert [r.source for r in loras] == re.findall("<.*?>", text)


@pytest.mark.parametrize(
    ("tag", "text", "unet"),
    [
        ("<lora:a:te=1:unet=0.5>", 1.0, 0.5),  # the forms of A1111's own description
        ("<lora:a:unet=0.5>", 1.0, 0.5),
        ("<lora:a:te=0.5>", 0.5, 0.5),
        ("<lora:a:0.3:unet=0.5>", 0.3, 0.5),
        ("<lora:a:0.3:0.4:te=0.6>", 0.6, 0.4),
        ("<lyco:a: te = 0.2 :0.9>", 0.2, 0.2),
    ],
)
def test_named_weights(tag, text, unet):
    rest, (request,) = extract_loras(f"x {tag}")
    assert (rest, request.name, request.text, request.unet) == ("x ", "a", text, unet)


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        ("<lora:a:b>", "'b' is no weight; expected a number"),
        ("<lora:>", "it names no file; write <lora:NAME:WEIGHT>"),
        ("<lora: :1>", "it names no file"),
        ("<lora:a:1:2:3>", "3 weights; expected at most 2: the text's and the U-Net's"),
        ("<lora:a:>", "'' is no weight"),
        ("<lora:a:0.8:lbw=1,0,0.5>", "'lbw=' is not supported; known: te, unet"),
        ("<lora:a:0.8:dyn=4>", "'dyn=' is not supported"),
        ("<lora:a:te=1:te=1>", "'te=' is given twice"),
        ("<lora:a:te=x>", "'x' is no weight"),
        ("<lora:a:nan>", "'nan' is no weight"),
        ("<hypernet:a:1:2>", "2 weights; expected at most 1: its weight"),
        ("<hypernet:a:te=1>", "'te=' is not supported"),
        ("<LORA:a:1>", "no tag is called 'LORA'; known: lora, lyco, hypernet"),
        ("<wildcard:animal>", "no tag is called 'wildcard'"),
    ],
)
def test_a_tag_that_is_not_understood_is_an_error(tag, reason):
    for extract in (extract_loras, extract_hypernetworks):
        with pytest.raises(PromptError, match=re.escape(f"prompt tag {tag!r}: {reason}")):
            extract(f"x {tag} y")


def test_tags_are_counted():
    assert len(extract_loras("<lora:a:1>" * 200)[1]) == 200
    with pytest.raises(PromptError, match="201 tags in one prompt; expected at most 200"):
        extract_loras("<lora:a:1>" * 201)


def test_a_tag_that_is_not_closed_is_an_error():
    with pytest.raises(PromptError, match="it has no '>' at its end"):
        extract_loras("x <lora:a:0.8 y")


@pytest.mark.parametrize("text", ["<3", "a < b: c", "<x>", "<3: love", "a <b: c"])
def test_what_is_no_tag_stays_words(text):
    assert extract_loras(text) == (text, [])


# --- prompts whose meaning is known because they are made from it


def grow(draw: random.Random, depth: int):
    """A random prompt as a tree: text, (brackets, child), ("[:", from, to, when), ("|", arms)."""
    kind = draw.random()
    if depth == 0 or kind < 0.4:
        return draw.choice(["a", "red fox", " ", ", ", r"\(", r"\:", "<x>", "{", "é"])
    children = [[grow(draw, depth - 1) for _ in range(draw.randint(0, 3))] for _ in range(3)]
    if kind < 0.55:
        return (draw.choice(["()", "[]", "(:1.3)"]), children[0])
    if kind < 0.8:
        return ("[:", children[0], children[1], draw.choice(["3", " 5 ", "0.5", "12", ".25", "0"]))
    return ("|", children[: draw.randint(2, 3)])


def source(tree) -> str:
    if isinstance(tree, str):
        return tree
    if isinstance(tree, list):
        return "".join(map(source, tree))
    if tree[0] == "[:":
        return f"[{source(tree[1])}:{source(tree[2])}:{tree[3]}]"
    if tree[0] == "|":
        return "[" + "|".join(map(source, tree[1])) + "]"
    return tree[0][0] + source(tree[1]) + tree[0][1:]


def meaning(tree, step: int, steps: int) -> str:
    if isinstance(tree, str):
        return tree
    if isinstance(tree, list):
        return "".join(meaning(child, step, steps) for child in tree)
    if tree[0] == "[:":
        when = float(tree[3]) * (steps if "." in tree[3] else 1)
        return meaning(tree[1] if step <= int(when) else tree[2], step, steps)
    if tree[0] == "|":
        return meaning(tree[1][(step - 1) % len(tree[1])], step, steps)
    return tree[0][0] + meaning(tree[1], step, steps) + tree[0][1:]


def test_made_prompts_mean_what_they_were_made_from():
    draw = random.Random(0)
    changing = 0
    for _ in range(2000):
        tree = [grow(draw, 4) for _ in range(3)]
        schedule = parse_schedule(source(tree), 10)
        changing += len(schedule) > 1
        for step in range(1, 11):
            said = next(text for until, text in schedule if step <= until)
            assert said == meaning(tree, step, 10), source(tree)
    assert changing > 500


def naive_emphasis(text: str) -> list[tuple[str, float]]:
    """The rules once more, letter by letter, with weights multiplied from the inside out."""
    letters: list[list] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}

    def close(kind: str, factor: float) -> None:
        for letter in letters[opened[kind].pop() :]:
            letter[1] *= factor

    i = 0
    while i < len(text):
        number = re.match(r":\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\)", text[i:], re.ASCII)
        if text[i] == "\\" and i + 1 < len(text):
            letters.append([text[i + 1], 1.0])
            i += 2
            continue
        if text[i] in "([":
            opened[text[i]].append(len(letters))
        elif text[i] == ")" and opened["("]:
            close("(", 1.1)
        elif text[i] == "]" and opened["["]:
            close("[", 1 / 1.1)
        elif number and opened["("]:
            close("(", float(number[1]))
            i += len(number[0])
            continue
        elif number:
            letters += [[letter, 1.0] for letter in number[0]]
            i += len(number[0])
            continue
        else:
            letters.append([text[i], 1.0])
        i += 1
    for kind, factor in (("(", 1.1), ("[", 1 / 1.1)):
        while opened[kind]:
            close(kind, factor)
    return [(letter, weight) for letter, weight in letters]


NOISE = [*"()[]:|\\ ,.ab19\n-", ":1.3)", ": .5 )", "(", "[a:", "|b]", ":3]", "é", "😀"]


def test_noise_agrees_with_the_rules_letter_by_letter():
    draw = random.Random(1)
    for _ in range(5000):
        text = "".join(draw.choices(NOISE, k=draw.randint(0, 25)))
        ours = [(letter, piece.weight) for piece in parse_emphasis(text) for letter in piece.text]
        theirs = naive_emphasis(text)
        assert [letter for letter, _ in ours] == [letter for letter, _ in theirs], text
        assert [w for _, w in ours] == pytest.approx([w for _, w in theirs], rel=1e-12), text


# --- any string at all

WORDS = [*NOISE, "BREAK", " BREAK ", "AND", " AND ", "<lora:", "<lora:a:1>", ">", "\ud800", "\0"]


def check(text: str) -> None:
    """Nothing raises, nothing is lost, printing is idempotent."""
    assert "".join(token for token, _ in language._EMPHASIS.findall(text)) == text
    assert "".join(language._SCHEDULE.findall(text)) == text
    pieces = parse_emphasis(text)
    printed = format_emphasis(pieces)
    assert parse_emphasis(printed) == pieces
    assert format_emphasis(parse_emphasis(printed)) == printed
    kept = re.sub(r"\s|BREAK", "", "".join(piece.text for piece in pieces if piece is not BREAK))
    assert len(kept) <= len(text)
    assert parse_schedule(text, 10)[-1][0] == 10
    try:
        rest, loras = extract_loras(text)
    except PromptError:  # a tag that is not understood: one line
        return
    assert len(rest) + sum(len(lora.source) for lora in loras) == len(text)
    assert all(isinstance(part, Subprompt) for part in parse_parts(text))


def parse(text: str) -> None:
    """All that the language does to a prompt of 10 steps."""
    rest = text
    with contextlib.suppress(PromptError):
        rest, _ = extract_loras(text)
    for part in parse_parts(rest):
        for said in {said for _, said in parse_schedule(part.text, 10)}:
            parse_emphasis(said)


@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=5), max_size=40).map("".join))
@settings(max_examples=300, deadline=None, derandomize=True)
def test_any_string(text):
    check(text)


@pytest.mark.parametrize("count", [2000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_random_strings(count):
    """None raises, in the language's densest noise."""
    draw = random.Random(2)
    for _ in range(count):
        size = int(10 ** draw.uniform(0, 2.7))
        if draw.random() < 0.5:
            text = "".join(draw.choices(WORDS, k=size))
        else:
            text = "".join(chr(draw.randrange(0x110000)) for _ in range(size))
        with guarded():
            check(text)


@pytest.mark.parametrize(
    "unit",
    quick(
        ["(", "[a|b]", "[a:", " ", "<lora:", "AND "],
        ["(", "[", "(a", "[a|b]", "[a:", ":", ": ", " ", ":1", "1", "[]", "\\", "<lora:", "AND "],
    ),
)
def test_work_is_linear(unit):
    """Ten times as long is about ten times the work, also for what is meant to be slow.

    Lines of Python are counted; a regular expression that is quadratic meets the guard.
    """
    short, long = unit * (500 // len(unit)), unit * (5_000 // len(unit))
    parse(short)
    before = lines_run(lambda: parse(short))
    assert lines_run(lambda: parse(long)) < 20 * before + 1000
    with guarded():
        parse(unit * (100_000 // len(unit)))


def test_pieces_print_as_they_were_written():
    assert format_emphasis([Piece("a (b", 1.0), Piece("c", 1.5), BREAK, Piece("d", 1.0)]) == (
        r"a \(b(c:1.5) BREAK d"
    )


@pytest.mark.parametrize("text", ["caf\udce9", "\ud83d", "a \udcff\udc80"])
def test_what_is_not_utf_8_is_refused(text):
    with pytest.raises(PromptError, match=r"prompt: not UTF-8 after '.*' \(letter \d+\)"):
        check_text(text)
    assert check_text("café \U0001f600") == "café \U0001f600"


def test_where_we_differ_from_a1111():
    """The table of docs/prompts.md, row by row."""
    assert parse_emphasis("(a BREAK b:1.3)") == [Piece("a", 1.3), BREAK, Piece("b", 1.3)]
    assert parse_parts("a clock at 10:30") == [Subprompt("a clock at 10:30", 1.0)]
    assert parse_emphasis("(fox:1e-1)") == [Piece("fox", 0.1)]
    assert parse_parts("a AND b:1e-1") == [Subprompt("a", 1.0), Subprompt("b", 0.1)]
    assert parse_schedule("[a:b:10:30]", 20) == [(20, "[a:b:10:30]")]
    with pytest.raises(PromptError):
        extract_loras("<unknown:x>")
    assert not is_mentioned("bad-hands", "a fox, bad-hands2")
    assert is_mentioned("bad-hands", "a fox, (bad-hands:1.1)")
