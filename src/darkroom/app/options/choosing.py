"""Options of the verbs that let words choose a mask: ``segment --text``, ``edit --select``."""

from typing import Annotated

import typer

from darkroom.names import ENCODER_MODEL

WORDS = "By words"

Every = Annotated[
    bool,
    typer.Option(
        "--every", help="All that fits the words, not only what fits best.", rich_help_panel=WORDS
    ),
]
Against = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TEXT",
        help="What they could be taken for, and is not meant; may be repeated.",
        rich_help_panel=WORDS,
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        min=0.0,
        max=1.0,
        metavar="X",
        help="How well it must fit them, 0 to 1. Default: 0.5.",
        rich_help_panel=WORDS,
    ),
]
Encoder = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PATH",
        help=f"What compares masks with words: CLIP. Default: {ENCODER_MODEL}.",
        rich_help_panel=WORDS,
    ),
]
