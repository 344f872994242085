"""From a checked request to pictures, one batch after another."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from darkroom.app.progress import Progress
from darkroom.app.request import Request
from darkroom.app.session import Session
from darkroom.errors import NotEnoughMemoryError

if TYPE_CHECKING:
    from darkroom.diffusion.latent_diffusion import LatentDiffusion
    from darkroom.generation.feature import Feature
    from darkroom.generation.generate import Generation
    from darkroom.generation.picture import Picture

SMALL = 128 * 128  # pixels: below, a batch of eight takes little longer than one picture


@dataclass(frozen=True)
class Job:
    """One batch: a prompt and the seeds of its pictures."""

    prompt: str
    seeds: tuple[int, ...]
    only: int | None = None  # index of the one picture that is wanted; None: all


def jobs(request: Request, model: "LatentDiffusion") -> list[Job]:
    """Batches, in the order in which the pictures are to appear."""
    if request.batch:
        return [Job(request.prompts[0], request.batch, request.index)]
    height, width = request.size or model.settings.get("size") or (512, 512)
    most = 8 if height * width <= SMALL else 4 if model.device.type == "cuda" else 1
    seeds = request.seeds
    chunks = [seeds[start : start + most] for start in range(0, len(seeds), most)]
    return [Job(prompt, chunk) for prompt in request.prompts for chunk in chunks]


def draw(session: Session, request: Request, preview: bool = False) -> Iterator["Picture"]:
    """Load, then yield each picture when it is finished, with progress on stderr."""
    model = session.model(request.model_name, request.dtype, request.device)
    model = with_clip_skip(model, request.clip_skip)
    left = jobs(request, model)
    total, done = len(left), 0
    bar: Progress | None = None
    colours: Any = None
    try:
        while left:
            job = left.pop(0)
            try:
                generation = start(model, request, job)
            except NotEnoughMemoryError:
                if len(job.seeds) == 1 or job.only is not None:
                    raise
                middle = len(job.seeds) // 2
                halves = (job.seeds[:middle], job.seeds[middle:])
                left[:0] = [Job(job.prompt, half) for half in halves]
                total += 1
                if bar:
                    bar.total += bar.total / (total - 1)
                continue
            if bar is None:
                bar = Progress("drawing", total * len(generation), preview=preview).__enter__()
            note = f"picture {done + 1}" if len(job.seeds) == 1 else ""
            for step in generation:
                bar.advance(1, note)
                if preview and bar.live:
                    from darkroom.generation import preview as previews

                    colours = colours or previews.factors(model)
                    bar.picture(previews.preview(model, step.denoised[:1], colours=colours)[0])
            bar.advance(0, "decoding")
            for picture in generation.pictures(job.only):
                done += 1
                yield picture
    finally:
        if bar:
            bar.__exit__(None, None, None)


def start(model: "LatentDiffusion", request: Request, job: Job) -> "Generation":
    """Prepare one batch; what is wrong with the request shows here, before the first step."""
    from darkroom.generation.generate import generate

    return generate(
        model,
        job.prompt,
        *features(model, request),
        seeds=job.seeds,
        steps=request.steps,
        size=request.size,
        sampler=request.sampler,
        spacing=request.spacing,
    )


def features(model: "LatentDiffusion", request: Request) -> list["Feature"]:
    """The inference options that a request asks for."""
    from darkroom.generation.guidance import Guidance
    from darkroom.generation.image import ImageToImage

    scale = request.guidance
    if scale is None:
        scale = float(model.settings.get("guidance", 7.5))
    found: list[Feature] = [
        Guidance(scale, request.negative or None, request.rescale or 0.0, request.interval)
    ]
    if request.image is not None:
        found.append(ImageToImage(request.image, request.strength or 0.6))
    return found


def with_clip_skip(model: "LatentDiffusion", clip_skip: int | None) -> "LatentDiffusion":
    """``model``, its text tower read ``clip_skip`` layers before the end (1 is the last one)."""
    if clip_skip is None:
        return model
    import copy
    from dataclasses import replace

    encoder: Any = copy.copy(model.text_encoder)
    encoder.clip_skip = clip_skip
    return replace(model, text_encoder=encoder)
