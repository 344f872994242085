"""What a verb that draws asks for: flags, on top of a picture to redraw. No torch."""

import secrets
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from darkroom.app.drawing.origin import check_origin, check_remote
from darkroom.app.drawing.styles import Style
from darkroom.app.outcome import usage
from darkroom.app.values import existing
from darkroom.names import DEFAULT_MODEL
from darkroom.text.prompt import (
    HypernetworkRequest,
    LoraRequest,
    check_text,
    extract_hypernetworks,
    extract_loras,
)

if TYPE_CHECKING:
    from darkroom.app.drawing.saving import Destination
    from darkroom.app.outcome import Answer
    from darkroom.diffusion.latent_diffusion import LatentDiffusion
    from darkroom.generation.feature import Feature
    from darkroom.generation.metadata import Params

STRENGTH = 0.6
REFINER_START = 0.8


@dataclass(frozen=True, kw_only=True)
class Request:
    """One call of ``darkroom generate``. None: not said; the picture's or model's own is used.

    A verb that asks for more has a subclass with fields of its own, in ``FILES`` those that name
    what a run starts from, and its own ``check_inputs``, ``features``, ``inputs`` and ``params``.
    """

    DEFAULT: ClassVar[str] = DEFAULT_MODEL
    FILES: ClassVar[tuple[str, ...]] = ("image",)  # a redrawn picture needs them to be said again

    prompts: tuple[str, ...] = ()
    model: str | None = None
    negative: str | None = None
    steps: int | None = None
    sampler: str | None = None
    spacing: str | None = None
    timesteps: tuple[int, ...] | None = None  # instead of steps and a spacing
    guidance: float | None = None
    seed: int | None = None
    count: int | None = None
    size: tuple[int, int] | None = None  # (height, width) in pixels
    image: Path | None = None
    strength: float | None = None
    dtype: str | None = None
    device: str | None = None
    strict: bool = False  # about keys of no part in the model's file
    low_memory: bool = False
    loras: tuple[LoraRequest, ...] = ()  # with --lora, beside those that a prompt asks for
    embeddings: tuple[str, ...] = ()  # with --embedding, beside those that prompts name
    hypernetworks: tuple[HypernetworkRequest, ...] = ()  # with --hypernetwork
    clip_skip: int | None = None  # as A1111 counts: 1 skips nothing
    styles: tuple[Style, ...] = ()  # that are in the prompts already
    own_negative: str | None = None  # the negative prompt without the styles' words
    refiner: str | None = None
    refiner_start: float | None = None
    redrawn: "Params | None" = None  # of the picture given with --from
    remote: bool = False  # what that picture names may be downloaded

    def styled(self, styles: tuple[Style, ...]) -> Self:
        """Itself, its prompts in these styles.

        Raises:
            UsageError: there is no prompt to put into them.
        """
        if not styles:
            return self
        if not self.prompts:
            raise usage("needs a PROMPT; the one in a picture is what it is", "--style")
        prompts, negative = list(self.prompts), self.negative or ""
        for style in styles:
            prompts = [style.applied(prompt, "")[0] for prompt in prompts]
            negative = style.applied("", negative)[1]
        return replace(
            self,
            prompts=tuple(prompts),
            negative=negative or None,
            styles=(*self.styles, *styles),
            own_negative=self.own_negative if self.styles else self.negative,
        )

    def negative_at(self, scale: float) -> str | None:
        """The negative prompt at a guidance scale: without guidance, not that of the styles."""
        return self.own_negative if self.styles and scale <= 1 else self.negative

    def checked(self) -> Self:
        """Itself, after a look at what does not fit together; files must be there.

        Raises:
            UsageError: flags that contradict each other, or of which one would have no effect.
            ModelNotFoundError: a file is missing.
        """
        redrawn = self.redrawn
        if not self.prompts and redrawn is None:
            raise usage("give a PROMPT, or --prompts FILE, or --from PICTURE")
        for text in (*self.texts, self.negative or ""):
            check_text(text)
        if redrawn:
            check_origin(self, redrawn)
        if redrawn and not self.remote:
            check_remote(self.named_by(redrawn))
        self.check_inputs()
        for name in ("steps", "spacing"):
            if self.timesteps and getattr(self, name) is not None:
                raise usage("says what --timesteps says: leave one of them out", f"--{name}")
        scale = self.guidance if self.guidance is not None else redrawn and redrawn.guidance
        if scale is not None and scale <= 1 and self.negative_at(scale):
            raise usage(
                f"has no effect at guidance {scale:g}; say --guidance above 1, or drop it",
                "--negative",
            )
        drawn = redrawn.negative if redrawn and self.negative is None else None
        if drawn and self.guidance is not None and self.guidance <= 1:
            raise usage(
                f"at {self.guidance:g} the picture's negative prompt has no effect; drop it with "
                '--negative ""',
                "--guidance",
            )
        if self.refiner_start is not None and not self.refiner_name:
            raise usage("has no effect without --refiner NAME", "--refiner-start")
        return self

    def named_by(self, redrawn: "Params") -> list[tuple[str, str, str]]:
        """What the redrawn picture names and this request leaves as it is: what, name, flag."""
        from darkroom.generation.metadata.named import tagged

        found = [] if self.model else [("model", redrawn.model, "--model")]
        if redrawn.refiner and not self.refiner:
            found.append(("model", redrawn.refiner.name, "--refiner"))
        used = [(lora.name, "LoRA") for lora in redrawn.loras if not self.loras]
        used += [(e.name, "textual inversion") for e in redrawn.embeddings if not self.embeddings]
        used += [(h.name, "hypernetwork") for h in redrawn.hypernetworks if not self.hypernetworks]
        flags = {"LoRA": "--lora", "hypernetwork": "--hypernetwork"}
        found += [(what, name, flags.get(what, "--embedding")) for name, what in used]
        if not self.prompts:
            found += [(what, name, "PROMPT") for what, name in tagged(redrawn)]
        return found

    def check_inputs(self) -> None:
        """The part of ``checked`` about the files that a run starts from."""
        redrawn = self.redrawn
        if redrawn and (redrawn.controls or redrawn.depth):
            raise usage(
                "the picture follows a hint, which is not in it; say "
                "darkroom control PHOTO --from PICTURE",
                "--from",
            )
        if redrawn and redrawn.inpaint:
            raise usage(
                "the picture is another one with a part painted anew; say "
                "darkroom edit IMAGE --mask FILE --from PICTURE",
                "--from",
            )
        self.check_image()

    def check_image(self) -> None:
        """The part of ``checked`` about --image and --strength."""
        if self.strength is not None and not self.image:
            raise usage("has no effect without --image FILE", "--strength")
        if self.redrawn and self.redrawn.image and not self.image:
            raise usage(
                "the picture was drawn from another one, which is not in it; give --image FILE",
                "--from",
            )
        if self.image:
            existing(self.image, "picture")

    def found(self, answer: "Answer", destination: "Destination") -> Self:
        """Itself, after a look into its pictures for what it names by words.

        Raises:
            NotFoundError: it is not there.
        """
        return self

    @property
    def is_exact(self) -> bool:
        """Nothing is asked for that would change the picture that is redrawn."""
        apart = ("redrawn", "device", "remote", "low_memory", *self.FILES)
        said = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        return self.redrawn is not None and not set(said) - set(apart)

    @property
    def is_one_of_a_batch(self) -> bool:
        """The batch of the redrawn picture runs again: its size decides the lowest bits."""
        return bool(self.redrawn) and self.seed is None and self.count is None and not self.prompts

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """One a picture of each prompt, counting up; a random start where no seed was said."""
        start = self.seed
        if start is None:
            start = self.redrawn.seed if self.redrawn else secrets.randbelow(2**32)
        return tuple(range(start, start + (self.count or 1)))

    @property
    def texts(self) -> tuple[str, ...]:
        """The prompts, or that of the redrawn picture."""
        if self.prompts or self.redrawn is None:
            return self.prompts
        return (self.redrawn.prompt,)

    @property
    def pictures(self) -> int:
        """How many will be drawn."""
        return len(self.texts) * (self.count or 1)

    @property
    def model_name(self) -> str:
        """The model that is meant; the built-in one if none was said."""
        return self.model or (self.redrawn.model if self.redrawn else "") or self.DEFAULT

    @property
    def refiner_name(self) -> str | None:
        """The model that does the last steps, if one does."""
        drawn = self.redrawn.refiner.name if self.redrawn and self.redrawn.refiner else None
        return self.refiner or drawn

    @property
    def lora_names(self) -> tuple[str, ...]:
        """Those of all LoRAs that will be needed, each once."""
        names = [lora.name for text in self.texts for lora in extract_loras(text)[1]]
        names += [lora.name for lora in self.loras]
        if self.redrawn and not self.loras:
            names += [lora.name for lora in self.redrawn.loras if not lora.tagged]
        return tuple(dict.fromkeys(names))

    @property
    def hypernetwork_names(self) -> tuple[str, ...]:
        """Those of all hypernetworks that will be needed, each once."""
        names = [tag.name for text in self.texts for tag in extract_hypernetworks(text)]
        names += [said.name for said in self.hypernetworks]
        if self.redrawn and not self.hypernetworks:
            names += [used.name for used in self.redrawn.hypernetworks if not used.tagged]
        return tuple(dict.fromkeys(names))

    @property
    def precision(self) -> str | None:
        """The dtype that was said, or that of the redrawn picture."""
        return self.dtype or (self.redrawn.dtype if self.redrawn else "") or None

    @property
    def layers_left_out(self) -> int:
        """Of the text tower, at its end; what A1111 counts as 1 leaves none out."""
        if self.clip_skip is not None:
            return self.clip_skip - 1
        return self.redrawn.clip_skip if self.redrawn else 0

    def features(self, model: "LatentDiffusion") -> "list[Feature]":
        """The inference options asked for, beside guidance and --lora."""
        from darkroom.generation.image import ImageToImage

        if self.image is None:
            return []
        return [ImageToImage(self.image, self.strength or STRENGTH)]

    def inputs(self) -> dict[str, Any]:
        """What ``arguments_of`` needs to redraw, beside the parameters and ``image``."""
        return {}

    def params(self, seeds: tuple[int, ...]) -> "Params":
        """The redrawn picture's parameters with what was said put over them."""
        from darkroom.generation.metadata.params import SourceImage, UsedRefiner

        params = self.redrawn
        assert params is not None
        said = {
            "negative": self.negative,
            "steps": self.steps,
            "sampler": self.sampler,
            "spacing": self.spacing,
            "timesteps": self.timesteps,
            "guidance": self.guidance,
            "size": self.size,
        }
        changes = {name: value for name, value in said.items() if value is not None}
        if self.timesteps:
            changes |= {"steps": len(self.timesteps), "spacing": ""}
        elif self.steps is not None or self.spacing is not None:
            changes["timesteps"] = ()
        if self.sampler and self.sampler != params.sampler:
            changes["options"] = {}  # they are another sampler's
        if seeds != params.seeds:
            changes |= {"seeds": seeds, "index": 0}
        if self.loras:
            changes["loras"] = ()  # these are given, not found by name
        if self.embeddings:
            changes["embeddings"] = ()
        if self.hypernetworks:
            changes["hypernetworks"] = ()
        if self.refiner or (self.refiner_start is not None and params.refiner):
            old = params.refiner or UsedRefiner(name="", start=REFINER_START)
            start = old.start if self.refiner_start is None else self.refiner_start
            changes["refiner"] = UsedRefiner(name=self.refiner or old.name, start=start)
        if self.prompts:
            changes["styles"] = tuple(style.name for style in self.styles)
        image = params.image
        if self.image and image is None:
            changes["image"] = SourceImage(sha256="", strength=self.strength or STRENGTH)
        elif image is not None and self.strength is not None:
            changes["image"] = replace(image, strength=self.strength)
        return replace(params, origin=None, **changes)
