"""Draw what was asked for, and save each picture when it is finished."""

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.app import values
from darkroom.app.drawing.checking import check_adapters, check_model, check_words
from darkroom.app.drawing.origin import not_reproduced
from darkroom.app.drawing.request import Request
from darkroom.app.outcome import Answer, usage
from darkroom.app.output import SUFFIXES, Output, output
from darkroom.app.terminal import is_live, say, seconds_text, show
from darkroom.text.prompt import LONGEST

if TYPE_CHECKING:
    from darkroom.generation.metadata import Params
    from darkroom.generation.picture import Picture


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where pictures go; the flags --out, --json, --preview and --no-mark."""

    target: Output | None  # None: stdout
    preview: bool = False
    mark: bool = True


def destination(
    out: str, pictures: int, *, json: bool = False, preview: bool = False, no_mark: bool = False
) -> Destination:
    """What the flags about output say.

    Args:
        pictures: how many there will be, at least.

    Raises:
        UsageError: they contradict each other, or stdout cannot take the pictures.
    """
    target = None if out == "-" else output(out)
    if target is not None:
        target.check()
    if target is None and json:
        raise usage("writes the picture to stdout, where --json would go; choose one", "--out -")
    if target is None and pictures > 1:
        raise usage(f"holds one picture, not {pictures}; give a folder", "--out -")
    if target is None and sys.stdout.isatty():
        raise usage("would write a picture to the terminal; redirect stdout", "--out -")
    if preview and not is_live():
        say("--preview: shows the picture on a terminal only")
    return Destination(target=target, preview=preview, mark=not no_mark)


def prompt_texts(prompt: str | None, file: Path | None = None) -> tuple[str, ...]:
    """The prompts that PROMPT and --prompts give; '-' is stdin.

    Raises:
        UsageError: both are given.
    """
    if prompt is not None and file is not None:
        raise usage("give a PROMPT or --prompts FILE, not both")
    if file is not None:
        return values.prompts_file(file)
    if prompt == "-":
        return (_piped(),)
    return () if prompt is None else (prompt,)


def _piped() -> str:
    """The prompt on stdin. What is no UTF-8 is kept, and refused where the prompt is checked."""
    if sys.stdin.isatty():
        say("reading the prompt; end it with Ctrl-D")
    data = sys.stdin.buffer.read(8 * LONGEST + 1)
    text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape").strip()
    if not text:
        raise usage("nothing came on stdin; pipe a prompt into it", "PROMPT -")
    return text


def draw_and_save(
    answer: Answer, said: Request, redraw: Path | None, destination: Destination
) -> None:
    """Check the request, draw its pictures and save each one; ``answer`` is told about them.

    Args:
        said: not yet checked.
        redraw: the picture of --from.

    Raises:
        DarkroomError: something is wrong with the request, or went wrong.
    """
    from darkroom.app.drawing.drawing import draw
    from darkroom.app.session import Session

    request = replace(said, redrawn=params_of(redraw) if redraw else None).checked()
    if note := not_reproduced(request.redrawn):
        say(f"--from: {note}", "yellow")
        answer.fields["notes"] = [note]
    check_model(request)
    check_adapters(request)
    wanted = request.pictures
    answer.fields |= {"model": request.model_name, "pictures": []}
    check_words(request, answer)
    request = request.found(answer, destination)
    started = time.perf_counter()
    pictures = draw(
        Session(request.strict, request.low_memory), request, preview=destination.preview
    )
    try:
        for picture in pictures:
            save(answer, picture, destination)
    finally:
        pictures.close()
        done = len(answer.fields["pictures"])
        seconds = time.perf_counter() - started
        answer.fields["seconds"] = round(seconds, 3)
        if done or wanted > 1:
            say(f"{done} of {wanted} pictures in {seconds_text(seconds)}")


def save(answer: Answer, picture: "Picture", destination: Destination) -> None:
    """Write one picture, say where, and note it in ``answer``."""
    params, target = picture.params, destination.target
    if target is None:
        sys.stdout.buffer.write(picture.to_bytes("PNG", mark=destination.mark))
        sys.stdout.buffer.flush()
        path = "-"
    else:
        data = picture.to_bytes(SUFFIXES[target.suffix], mark=destination.mark)
        path = str(target.save(data, params.prompt, params.seed))
        if not answer.wanted:
            show(path)
    for note in params.notes:
        say(f"{path}: {note}", "yellow")
    answer.fields["pictures"].append(
        {"path": path, "seed": params.seed, "params": params.to_plain()}
    )


def params_of(picture: Path) -> "Params":
    """The parameters in the picture of --from.

    Raises:
        ModelNotFoundError: there is no such file.
        ConfigError: it holds none.
    """
    values.existing(picture, "picture")
    from darkroom.generation.metadata import read_params

    return read_params(picture)
