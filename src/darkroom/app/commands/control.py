"""``darkroom control``: pictures that follow the edges, depths, poses ... of another one."""

from pathlib import Path

import typer

from darkroom.app.drawing.control import ControlRequest
from darkroom.app.drawing.saving import destination, draw_and_save, prompt_texts
from darkroom.app.drawing.styles import chosen
from darkroom.app.options import controlling
from darkroom.app.options import drawing as options
from darkroom.app.outcome import EXIT_CODES

EXAMPLES = """Examples:

darkroom control photo.png "a red fox"

darkroom control photo.jpg "a bird" --kind canny --low 10 --high 250 --weight 0.5
--model sd15 --net controlnet-canny

darkroom control "two dancers" --hint pose.png --net control_v11p_sd15_openpose.pth --model sd15

darkroom control photo.png "in winter" --image photo.png --strength 0.6

darkroom control photo.png --from pictures/00001-a-red-fox-7.png
"""


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("control", epilog=EXAMPLES + "\n" + EXIT_CODES)(control)


def control(
    ctx: typer.Context,
    photo: controlling.Photo = None,
    prompt: options.Prompt = None,
    kind: controlling.Kind = None,
    hint: controlling.Hints = None,
    net: controlling.Nets = None,
    weight: controlling.Weights = None,
    start: controlling.Starts = None,
    end: controlling.Ends = None,
    guess: controlling.Guess = False,
    fit: controlling.Fit = False,
    low: controlling.Low = None,
    high: controlling.High = None,
    annotator: controlling.Annotator = None,
    save_hint: controlling.SaveHint = None,
    model: options.Model = None,
    negative: options.Negative = None,
    size: options.Size = None,
    seed: options.Seed = None,
    count: options.Count = None,
    image: options.Image = None,
    strength: controlling.Strength = None,
    lora: options.Loras = None,
    embedding: options.Embeddings = None,
    hypernetwork: options.Hypernetworks = None,
    style: options.Styles = None,
    styles: options.StylesFile = None,
    redraw: options.Redraw = None,
    allow_remote: options.AllowRemote = False,
    steps: options.Steps = None,
    sampler: options.Sampler = None,
    spacing: options.Spacing = None,
    timesteps: options.Timesteps = None,
    guidance: options.Guidance = None,
    clip_skip: options.ClipSkip = None,
    refiner: options.Refiner = None,
    refiner_start: options.RefinerStart = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    strict: options.Strict = False,
    out: options.Out = "pictures",
    json: options.Json = False,
    preview: options.Preview = False,
    no_mark: options.NoMark = False,
) -> None:
    """Draw PROMPT along the lines of PHOTO, or of a hint that is drawn already.

    --from draws a picture again, with the same PHOTO, or the same --hint.
    """
    if hint and prompt is None and photo is not None:
        photo, prompt = None, photo
    said = ControlRequest(
        prompts=prompt_texts(prompt),
        model=model,
        negative=negative,
        steps=steps,
        sampler=sampler,
        spacing=spacing,
        timesteps=timesteps,
        guidance=guidance,
        seed=seed,
        count=count,
        size=size,
        image=image,
        strength=strength,
        dtype=dtype,
        device=device,
        strict=strict,
        clip_skip=clip_skip,
        loras=tuple(lora or ()),
        embeddings=tuple(embedding or ()),
        hypernetworks=tuple(hypernetwork or ()),
        refiner=refiner,
        refiner_start=refiner_start,
        remote=allow_remote,
        photo=Path(photo) if photo is not None else None,
        hints=tuple(hint or ()),
        kind=kind,
        low=low,
        high=high,
        annotator=annotator,
        save_hint=save_hint,
        nets=tuple(net or ()),
        weights=tuple(weight or ()),
        starts=tuple(start or ()),
        ends=tuple(end or ()),
        guess=guess,
        fit=fit,
    ).styled(chosen(style or (), styles))
    where = destination(out, count or 1, json=json, preview=preview, no_mark=no_mark)
    draw_and_save(ctx.obj, said, redraw, where)
