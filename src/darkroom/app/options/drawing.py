"""Arguments and options of the verbs that draw."""

from pathlib import Path
from typing import Annotated, Any

import typer

from darkroom.app import values
from darkroom.names import DEFAULT_MODEL

PICTURE, RUN, FILES = "What to draw", "How to draw it", "Files and output"

Prompt = Annotated[
    str | None,
    typer.Argument(show_default=False, help="What to draw; '-' reads it from stdin."),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PATH",
        help=f"A name (`darkroom models list`), file or folder. Default: {DEFAULT_MODEL}.",
        autocompletion=values.complete_model,
        rich_help_panel=PICTURE,
    ),
]
Negative = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="What to move away from.", rich_help_panel=PICTURE),
]
Size = Annotated[
    Any,
    typer.Option(
        metavar="WxH",
        parser=values.size,
        help="Width and height in pixels. Default: the model's.",
        rich_help_panel=PICTURE,
    ),
]
Seed = Annotated[
    Any,
    typer.Option(
        metavar="N",
        parser=values.seed,
        help="Of the first picture; the next ones count up. Default: random.",
        rich_help_panel=PICTURE,
    ),
]
Count = Annotated[
    int | None,
    typer.Option(
        min=1, max=10_000, metavar="N", help="Pictures per prompt.", rich_help_panel=PICTURE
    ),
]
Image = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Start from this picture.", rich_help_panel=PICTURE),
]
Strength = Annotated[
    Any,
    typer.Option(
        metavar="X",
        parser=values.strength,
        help="How far to leave --image: above 0, at most 1. Default: 0.6.",
        rich_help_panel=PICTURE,
    ),
]
Loras = Annotated[
    list[Any] | None,
    typer.Option(
        "--lora",
        metavar="NAME:WEIGHT",
        parser=values.lora,
        autocompletion=values.complete_lora,
        help="Add a LoRA, by file or name; may be repeated. In a prompt: <lora:NAME:WEIGHT>.",
        rich_help_panel=PICTURE,
    ),
]
Embeddings = Annotated[
    list[str] | None,
    typer.Option(
        "--embedding",
        metavar="FILE",
        help="A textual inversion, by file or name; may be repeated. Prompts use it by its name; "
        "those in model folders are found by that.",
        rich_help_panel=PICTURE,
    ),
]
Hypernetworks = Annotated[
    list[Any] | None,
    typer.Option(
        "--hypernetwork",
        metavar="NAME:WEIGHT",
        parser=values.hypernetwork,
        help="Add a hypernetwork; may be repeated. In a prompt: <hypernet:NAME:WEIGHT>.",
        rich_help_panel=PICTURE,
    ),
]
Redraw = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="PICTURE",
        help="Redraw this picture from its metadata; other flags override.",
        rich_help_panel=PICTURE,
    ),
]
AllowRemote = Annotated[
    bool,
    typer.Option(
        "--allow-remote",
        help="With --from: download what the picture names, if it is not here.",
        rich_help_panel=FILES,
    ),
]
Prompts = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Prompts, one a line.", rich_help_panel=PICTURE),
]
Styles = Annotated[
    list[str] | None,
    typer.Option(
        "--style",
        metavar="NAME",
        autocompletion=values.complete_style,
        help="Put the prompt into a style, such as cinematic; may be repeated.",
        rich_help_panel=PICTURE,
    ),
]
StylesFile = Annotated[
    Path | None,
    typer.Option(
        "--styles",
        metavar="FILE",
        help="Further styles: TOML, or a styles.csv of A1111.",
        rich_help_panel=PICTURE,
    ),
]
Refiner = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PATH",
        help="A model that does the last steps, such as sdxl-refiner.",
        autocompletion=values.complete_model,
        rich_help_panel=RUN,
    ),
]
RefinerStart = Annotated[
    Any,
    typer.Option(
        metavar="X",
        parser=values.refiner_start,
        help="Where --refiner takes over, as a fraction of the way. Default: 0.8.",
        rich_help_panel=RUN,
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(min=1, max=1000, metavar="N", help="Noise levels to visit.", rich_help_panel=RUN),
]
Sampler = Annotated[
    Any,
    typer.Option(
        metavar="NAME",
        parser=values.sampler,
        autocompletion=values.complete_sampler,
        help=f"One of {' '.join(values.SAMPLER_NAMES)}. Default: the model's.",
        rich_help_panel=RUN,
    ),
]
Spacing = Annotated[
    Any,
    typer.Option(
        metavar="NAME",
        parser=values.spacing,
        autocompletion=values.complete_spacing,
        help=f"One of {' '.join(values.SPACING_NAMES)}. Default: the model's.",
        rich_help_panel=RUN,
    ),
]
Timesteps = Annotated[
    Any,
    typer.Option(
        metavar="T,T,...",
        parser=values.timesteps,
        help="The training timesteps to visit, such as 999,749,499,249; not --steps, --spacing.",
        rich_help_panel=RUN,
    ),
]
Guidance = Annotated[
    Any,
    typer.Option(
        metavar="X",
        parser=values.guidance,
        help="How strictly to follow the prompt; 1 is off. Default: the model's.",
        rich_help_panel=RUN,
    ),
]
ClipSkip = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=12,
        metavar="N",
        help="Read the text tower N layers from its end, as A1111 counts; 1 is the last.",
        rich_help_panel=RUN,
    ),
]
Dtype = Annotated[
    Any,
    typer.Option(
        metavar="NAME",
        parser=values.dtype,
        autocompletion=values.complete_dtype,
        help="float32 (default on a CPU), float16 (default on CUDA) or bfloat16.",
        rich_help_panel=RUN,
    ),
]
Device = Annotated[
    Any,
    typer.Option(
        metavar="NAME",
        parser=values.device,
        autocompletion=values.complete_device,
        help="cpu, cuda, cuda:N or mps. Default: the fastest there is.",
        rich_help_panel=RUN,
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Refuse a model file with keys of no part of a model, instead of warning.",
        rich_help_panel=RUN,
    ),
]
LowMemory = Annotated[
    bool,
    typer.Option(
        "--low-memory",
        help="Keep no weights in memory but those at work, one picture at a time: slower.",
        rich_help_panel=RUN,
    ),
]
Out = Annotated[
    str,
    typer.Option(
        metavar="DIR|FILE|-",
        help="A folder, a file, or '-' for stdout. Nothing is ever overwritten.",
        rich_help_panel=FILES,
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="One JSON object on stdout.", rich_help_panel=FILES)
]
Preview = Annotated[
    bool,
    typer.Option(
        "--preview", help="Show the picture forming, on a terminal.", rich_help_panel=FILES
    ),
]
NoMark = Annotated[
    bool,
    typer.Option(
        "--no-mark",
        help="Leave out the note that a machine made the picture.",
        rich_help_panel=FILES,
    ),
]
