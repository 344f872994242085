"""From a checked request to pictures, one batch after another."""

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from darkroom.app.drawing.request import REFINER_START, Request
from darkroom.app.progress import Progress
from darkroom.app.session import Session
from darkroom.app.terminal import say, waiting
from darkroom.errors import NotEnoughMemoryError

if TYPE_CHECKING:
    from darkroom.diffusion.latent_diffusion import LatentDiffusion
    from darkroom.generation.feature import Feature
    from darkroom.generation.generate import Generation
    from darkroom.generation.picture import Picture

SMALL = 128 * 128  # pixels; below, a batch of eight costs little more than one picture


@dataclass(frozen=True)
class Job:
    """One batch: a prompt and the seeds of its pictures."""

    prompt: str
    seeds: tuple[int, ...]
    only: int | None = None  # index of the one picture that is wanted; None: all


def jobs(request: Request, model: "LatentDiffusion") -> list[Job]:
    """Batches, in the order in which the pictures are to appear."""
    from darkroom.generation.metadata.params import LARGEST_BATCH

    redrawn = request.redrawn
    if redrawn and request.is_one_of_a_batch:
        if len(redrawn.seeds) > LARGEST_BATCH:
            say(
                f"--from: one of a batch of {len(redrawn.seeds):,}; it is drawn alone, so its "
                "lowest bits may differ"
            )
            return [Job(redrawn.prompt, (redrawn.seed,))]
        return [Job(redrawn.prompt, redrawn.seeds, redrawn.index)]
    height, width = request.size or model.settings.get("size") or (512, 512)
    small = height * width <= SMALL and not (request.image and not request.size)
    most = 1 if request.low_memory else 8 if small else 4 if model.device.type == "cuda" else 1
    seeds = request.seeds
    chunks = [seeds[start : start + most] for start in range(0, len(seeds), most)]
    return [Job(text, chunk) for text in request.texts for chunk in chunks]


def draw(session: Session, request: Request, preview: bool = False) -> Generator["Picture"]:
    """Load, then yield each picture when it is finished, with progress on stderr."""
    with waiting(f"loading {request.model_name}"):
        model = session.model(request.model_name, request.precision, request.device)
    drawn = request.redrawn
    if request.layers_left_out or drawn:
        from darkroom.generation.redraw import clip_skip_of, with_clip_skip

        layers = request.layers_left_out
        if drawn and request.clip_skip is None:
            layers = clip_skip_of(drawn, model.family)
        model = with_clip_skip(model, layers, drawn.weighting if drawn else None)
    refiner = None
    if request.refiner_name:
        with waiting(f"loading {request.refiner_name}"):
            refiner = session.model(request.refiner_name, request.precision, request.device)
    if request.is_exact:
        check_weights(model, request)
    left = jobs(request, model)
    batches, done = len(left), 0
    bar: Progress | None = None
    try:
        while left:
            job = left.pop(0)
            try:
                generation = start(model, request, job, refiner)
            except NotEnoughMemoryError:
                halves = halved(job)
                if not halves:
                    raise
                left[:0] = halves
                batches += 1
                continue
            if bar is None:
                bar = Progress("drawing", 1, preview=preview).__enter__()
            bar.total = max(bar.done + (len(left) + 1) * len(generation), 1)
            note = progress_note(done, job, request.pictures)
            run(generation, model, bar, note, preview)
            for picture in generation.pictures(job.only):
                done += 1
                yield named(picture, request)
    finally:
        if bar:
            bar.__exit__(None, None, None)


def progress_note(done: int, job: Job, total: int) -> str:
    """'picture 2 of 4' or 'pictures 1-4 of 9'; nothing when there is one."""
    if total == 1:
        return ""
    last = done + (1 if job.only is not None else len(job.seeds))
    return (
        f"picture {last} of {total}"
        if last == done + 1
        else f"pictures {done + 1}-{last} of {total}"
    )


def run(
    generation: "Generation", model: "LatentDiffusion", bar: Progress, note: str, preview: bool
) -> None:
    """Advance one batch to its last step, on show."""
    colours: Any = None
    for step in generation:
        if preview and bar.live:
            from darkroom.generation import preview as previews

            colours = colours or previews.factors(model)
            bar.picture(previews.preview(model, step.denoised[:1], colours=colours)[0])
        last = step.index == len(generation) - 1
        bar.advance(1, "decoding" if last else note)


def halved(job: Job) -> list[Job]:
    """Two jobs of half the batch, for less memory; none if it cannot be halved."""
    if len(job.seeds) == 1 or job.only is not None:
        return []
    middle = len(job.seeds) // 2
    return [Job(job.prompt, job.seeds[:middle]), Job(job.prompt, job.seeds[middle:])]


def check_weights(model: "LatentDiffusion", request: Request) -> None:
    """Refuse to redraw with other weights than the picture's.

    Raises:
        ModelMismatchError: the fingerprints differ.
    """
    from darkroom.errors import ModelMismatchError
    from darkroom.generation.fingerprint import fingerprint

    params = request.redrawn
    if params and params.fingerprint and fingerprint(model) != params.fingerprint:
        raise ModelMismatchError(
            f"model {request.model_name!r} is not the one that drew the picture (its weights have "
            "another fingerprint); name that one with --model, or this one to draw with it anyway"
        )


def named(picture: "Picture", request: Request) -> "Picture":
    """``picture``, with the names of its styles in its parameters."""
    names = tuple(style.name for style in request.styles)
    if request.redrawn and not request.prompts:
        names = request.redrawn.styles
    return replace(picture, params=replace(picture.params, styles=names))


def start(
    model: "LatentDiffusion",
    request: Request,
    job: Job,
    refiner: "LatentDiffusion | None" = None,
) -> "Generation":
    """Prepare one batch; what is wrong with the request shows here, before the first step."""
    from darkroom.generation.generate import generate

    if request.redrawn:
        from darkroom.generation.redraw import arguments_of

        params = request.params(job.seeds)
        found, arguments = arguments_of(
            params,
            request.image,
            refiner=refiner,
            exact=request.is_exact,
            remote=True,  # what is not allowed was refused before
            **request.inputs(),
        )
        arguments["low_memory"] = request.low_memory
        generation = generate(model, job.prompt, *found, *adapters(request), **arguments)
        if request.is_exact:
            from darkroom.generation.adapters.embedding import check_same

            check_same(generation.params, params)
        return generation
    return generate(
        model,
        job.prompt,
        *features(model, request),
        *refined(refiner, request),
        seeds=job.seeds,
        steps=request.steps,
        size=request.size,
        sampler=request.sampler,
        spacing=request.spacing,
        timesteps=request.timesteps,
        low_memory=request.low_memory,
    )


def features(model: "LatentDiffusion", request: Request) -> list["Feature"]:
    """The inference options that a request asks for."""
    from darkroom.generation.guidance import Guidance

    scale = request.guidance
    if scale is None:
        scale = model.guidance
    negative = request.negative_at(scale) or None
    if request.styles and request.negative and not negative:
        say(f"guidance is off ({scale:g}): the negative prompt of the style has no effect")
    return [Guidance(scale, negative), *request.features(model), *adapters(request)]


def refined(refiner: "LatentDiffusion | None", request: Request) -> list["Feature"]:
    """What hands the run over to a refiner, if there is one."""
    from darkroom.generation.xl.refiner import Refiner

    return [] if refiner is None else [Refiner(refiner, request.refiner_start or REFINER_START)]


def adapters(request: Request) -> list["Feature"]:
    """Those given with flags; ``generate`` sees to those that the prompt asks for."""
    from darkroom.generation.adapters.embedding import Embedding
    from darkroom.generation.adapters.hypernetwork import Hypernetwork
    from darkroom.generation.adapters.lora import Lora

    return [
        *(Lora(lora.name, lora.unet, lora.text) for lora in request.loras),
        *(Hypernetwork(said.name, said.weight) for said in request.hypernetworks),
        *(Embedding(name) for name in request.embeddings),
    ]
