"""``darkroom edit``: a part of a picture painted anew."""

import typer

from darkroom.app.drawing.edit import EditRequest
from darkroom.app.drawing.saving import destination, draw_and_save, prompt_texts
from darkroom.app.drawing.styles import chosen
from darkroom.app.options import choosing, editing
from darkroom.app.options import drawing as options
from darkroom.app.outcome import EXIT_CODES

EXAMPLES = """Examples:

darkroom edit bench_dog.png "a white cat on a bench" --mask bench_dog_mask.png

darkroom edit scene.png "a green apple" --select "the strawberry"

darkroom edit photo.jpg "a red door" --mask door.png --only-masked --model sd15-inpainting

darkroom edit photo.jpg "a wide beach" --extend 128,0,128,0

darkroom edit bench_dog.png --mask bench_dog_mask.png --from pictures/00001-a-white-cat-7.png
"""


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("edit", epilog=EXAMPLES + "\n" + EXIT_CODES)(edit)


def edit(
    ctx: typer.Context,
    image: editing.Edited,
    prompt: options.Prompt = None,
    mask: editing.Mask = None,
    select: editing.Select = None,
    every: choosing.Every = False,
    against: choosing.Against = None,
    threshold: choosing.Threshold = None,
    grow: editing.Grow = None,
    segmenter: editing.Segmenter = None,
    encoder: choosing.Encoder = None,
    strength: editing.Strength = None,
    extend: editing.Extend = None,
    only_masked: editing.OnlyMasked = False,
    padding: editing.Padding = None,
    harmonise: editing.Harmonise = False,
    feather: editing.Feather = None,
    model: editing.Model = None,
    negative: options.Negative = None,
    size: options.Size = None,
    seed: options.Seed = None,
    count: options.Count = None,
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
    """Paint a part of IMAGE anew, as PROMPT says.

    The part is what is white in --mask, or named by --select. Any model does it; an inpainting
    model fits the part to the rest better. Outside of the mask every pixel stays
    as it was. --from draws a picture again, with the same IMAGE and --mask.
    """
    said = EditRequest(
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
        edited=image,
        mask=mask,
        select=select,
        every=every,
        against=tuple(against or ()),
        threshold=threshold,
        grow=grow,
        segmenter=segmenter,
        encoder=encoder,
        extend=extend,
        only_masked=only_masked,
        padding=padding,
        harmonise=harmonise,
        feather=feather,
    ).styled(chosen(style or (), styles))
    where = destination(out, count or 1, json=json, preview=preview, no_mark=no_mark)
    draw_and_save(ctx.obj, said, redraw, where)
