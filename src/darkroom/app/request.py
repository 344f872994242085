"""What a ``generate`` asks for: flags, on top of a picture to redraw. No torch."""

import secrets
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.app.outcome import usage
from darkroom.app.values import existing
from darkroom.names import DEFAULT_MODEL

if TYPE_CHECKING:
    from darkroom.generation.params import Params


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call of ``darkroom generate``. None: not said, so the model's own value is used."""

    prompts: tuple[str, ...] = ()
    model: str | None = None
    negative: str | None = None
    steps: int | None = None
    sampler: str | None = None
    spacing: str | None = None
    guidance: float | None = None
    rescale: float | None = None
    interval: tuple[float, float] = (0.0, 1.0)
    seed: int | None = None
    count: int | None = None
    batch: tuple[int, ...] = ()  # redrawing: the seeds of the batch that the picture was part of
    index: int = 0  # and which of them it was
    size: tuple[int, int] | None = None  # (height, width) in pixels
    image: Path | None = None
    strength: float | None = None
    loras: tuple[tuple[str, float], ...] = ()
    dtype: str | None = None
    device: str | None = None
    clip_skip: int | None = None

    def checked(self) -> "Request":
        """Itself, after a look at what does not fit together; files must be there.

        Raises:
            UsageError: flags that contradict each other, or of which one would have no effect.
            ModelNotFoundError: a file is missing.
        """
        if not self.prompts:
            raise usage("give a PROMPT, or --prompts FILE, or --from PICTURE")
        if self.strength is not None and not self.image:
            raise usage("has no effect without --image FILE", "--strength")
        if self.negative and self.guidance is not None and self.guidance <= 1:
            raise usage(
                f"has no effect at --guidance {self.guidance:g}; say more than 1, or drop it",
                "--negative",
            )
        if self.image:
            existing(self.image, "picture")
        return self

    @property
    def seeds(self) -> tuple[int, ...]:
        """One a picture of each prompt, counting up; a random start where no seed was said."""
        if self.batch:
            return self.batch
        start = self.seed if self.seed is not None else secrets.randbelow(2**32)
        return tuple(range(start, start + (self.count or 1)))

    def over(self, params: "Params") -> "Request":
        """This request on top of a picture's parameters: what is said here wins."""
        base = Request(
            prompts=(params.prompt,),
            model=params.model or None,
            negative=params.negative,
            steps=params.steps or None,
            sampler=params.sampler or None,
            spacing=params.spacing or None,
            guidance=params.guidance,
            rescale=params.rescale or None,
            interval=params.interval,
            seed=params.seed,
            # low bits depend on the size of the batch, so all of it is drawn again
            batch=params.seeds if self.seed is None and self.count is None else (),
            index=params.index,
            size=params.size if all(params.size) else None,
            strength=params.image.strength if params.image and self.image else None,
            dtype=params.dtype or None,
        )
        said = {f.name: getattr(self, f.name) for f in fields(self)}
        silent = {f.name: f.default for f in fields(self)}
        return replace(base, **{k: v for k, v in said.items() if v != silent[k]})

    @property
    def model_name(self) -> str:
        """The model that is meant; the built-in one if none was said."""
        return self.model or DEFAULT_MODEL
