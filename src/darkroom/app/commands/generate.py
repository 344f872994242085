"""``darkroom generate``: from a prompt to picture files."""

import typer

from darkroom.app.drawing.request import Request
from darkroom.app.drawing.saving import destination, draw_and_save, prompt_texts
from darkroom.app.drawing.styles import chosen
from darkroom.app.options import drawing as options
from darkroom.app.outcome import EXIT_CODES

EXAMPLES = """Examples:

darkroom generate "a red apple" --seed 1 --count 4

darkroom generate "a cat on a yellow background" --steps 30 --sampler dpmpp_2m --spacing karras

darkroom generate "the same, in winter" --image photo.jpg --strength 0.5 --out winter.png

darkroom generate "a fox in the snow" --model sd15.safetensors --lora film-grain:0.8

darkroom generate --from pictures/00001-a-red-apple-1.png --guidance 4

darkroom generate --prompts ideas.txt --count 2 --json
"""


def add_to(app: typer.Typer) -> None:
    """Register the verb."""
    app.command("generate", epilog=EXAMPLES + "\n" + EXIT_CODES)(generate)


def generate(
    ctx: typer.Context,
    prompt: options.Prompt = None,
    model: options.Model = None,
    negative: options.Negative = None,
    size: options.Size = None,
    seed: options.Seed = None,
    count: options.Count = None,
    image: options.Image = None,
    strength: options.Strength = None,
    lora: options.Loras = None,
    embedding: options.Embeddings = None,
    hypernetwork: options.Hypernetworks = None,
    redraw: options.Redraw = None,
    allow_remote: options.AllowRemote = False,
    prompts: options.Prompts = None,
    style: options.Styles = None,
    styles: options.StylesFile = None,
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
    low_memory: options.LowMemory = False,
    out: options.Out = "pictures",
    json: options.Json = False,
    preview: options.Preview = False,
    no_mark: options.NoMark = False,
) -> None:
    """Draw pictures of PROMPT.

    Pictures carry their parameters: --from draws one again. Paths go to stdout, progress to stderr.
    """
    said = Request(
        prompts=prompt_texts(prompt, prompts),
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
        low_memory=low_memory,
        clip_skip=clip_skip,
        loras=tuple(lora or ()),
        embeddings=tuple(embedding or ()),
        hypernetworks=tuple(hypernetwork or ()),
        refiner=refiner,
        refiner_start=refiner_start,
        remote=allow_remote,
    ).styled(chosen(style or (), styles))
    pictures = len(said.prompts) * (count or 1)
    where = destination(out, pictures, json=json, preview=preview, no_mark=no_mark)
    draw_and_save(ctx.obj, said, redraw, where)
