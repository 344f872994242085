"""What ``darkroom edit`` asks for. No torch."""

import io
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from darkroom.app.drawing.replace import GROW, find, surroundings
from darkroom.app.drawing.request import Request
from darkroom.app.outcome import Answer, usage
from darkroom.app.terminal import say, waiting
from darkroom.app.values import existing
from darkroom.names import EDIT_MODEL

if TYPE_CHECKING:
    from darkroom.app.drawing.saving import Destination
    from darkroom.diffusion.latent_diffusion import LatentDiffusion
    from darkroom.generation.feature import Feature
    from darkroom.generation.metadata import Params, UsedInpaint, UsedSelection
    from darkroom.masks import Mask

HARMONISED = 16  # pixels over which --harmonise fades, if --feather does not say


@dataclass(frozen=True, kw_only=True)
class EditRequest(Request):
    """One call of ``darkroom edit``; ``strength`` is that of the change."""

    DEFAULT: ClassVar[str] = EDIT_MODEL
    SELECTING: ClassVar[tuple[str, ...]] = (
        "every", "against", "threshold", "grow", "segmenter", "encoder"
    )  # fmt: skip
    FILES: ClassVar[tuple[str, ...]] = ("edited", "mask", "select", *SELECTING, "selected")

    edited: Path
    mask: "Path | Mask | None" = None
    select: str | None = None
    every: bool = False
    against: tuple[str, ...] = ()
    threshold: float | None = None
    grow: int | None = None
    segmenter: str | None = None
    encoder: str | None = None
    selected: "UsedSelection | None" = None  # how the mask was found, when it was
    extend: tuple[int, int, int, int] | None = None
    only_masked: bool = False
    padding: int | None = None
    harmonise: bool = False
    feather: int | None = None

    def check_inputs(self) -> None:
        """Whether the files are there, and go with the flags.

        Raises:
            UsageError: a flag would have no effect, or nothing is to be changed.
            ModelNotFoundError: a file is missing.
        """
        existing(self.edited, "picture")
        drawn = self.redrawn.inpaint if self.redrawn else None
        near = self.only_masked or self.select is not None or (drawn and drawn.only_masked)
        if self.padding is not None and not near:
            raise usage("has no effect without --only-masked", "--padding")
        if self.mask and self.select is not None:
            raise usage("says what to paint, as --mask does; choose one", "--select")
        if self.select is not None and not self.select.strip():
            raise usage("no words; say what to look for, such as 'the dog'", "--select")
        by_words = self.how is not None
        for name in () if by_words else self.SELECTING:
            if _is_said(getattr(self, name)):
                raise usage("has no effect without --select TEXT", f"--{name}")
        if isinstance(self.mask, Path):
            existing(self.mask, "mask")
        elif not by_words and not self.extend and not (drawn and any(drawn.extend)):
            from darkroom.images import peek

            if not peek(self.edited).has_transparency_data:
                raise usage(
                    "which part? give --mask FILE (white is painted anew), --select TEXT, "
                    "--extend L,T,R,B, or a picture with transparent parts"
                )
        if self.redrawn and self.redrawn.image:
            raise usage("the picture started from another one too; use Python's redraw", "--from")

    def named_by(self, redrawn: "Params") -> list[tuple[str, str, str]]:
        """And what found the mask by words."""
        found, used = super().named_by(redrawn), redrawn.inpaint and redrawn.inpaint.selected
        if used and not self.mask:
            found += [] if self.segmenter else [("segmenter", used.segmenter, "--segmenter")]
            found += [] if self.encoder else [("encoder", used.encoder, "--encoder")]
        return found

    @cached_property
    def how(self) -> "UsedSelection | None":
        """How words lead to the mask: those that were said, over those of the redrawn picture."""
        drawn = self.redrawn.inpaint.selected if self.redrawn and self.redrawn.inpaint else None
        if self.mask or (self.select is None and drawn is None):
            return None
        from darkroom.generation.metadata import UsedSelection

        said = {name: getattr(self, name) for name in ("every", "against", "threshold", "grow")}
        said |= {"text": self.select, "segmenter": self.segmenter, "encoder": self.encoder}
        changes = {name: value for name, value in said.items() if _is_said(value)}
        if self.select is not None:
            drawn = UsedSelection(text=self.select, grow=GROW)
        assert drawn is not None
        return replace(drawn, **changes)

    def found(self, answer: Answer, destination: "Destination") -> Self:
        """Itself with the mask that words lead to; a picture of it is saved first.

        Raises:
            NotFoundError: nothing fits them; the candidates are saved instead.
        """
        if self.how is None:
            return self
        from darkroom.app.seeing.opening import introduce
        from darkroom.app.session import usable_device
        from darkroom.names import ENCODER_MODEL, SEGMENT_MODEL
        from darkroom.vision.select import NotFoundError

        introduce(self.how.segmenter or SEGMENT_MODEL, answer)
        introduce(self.how.encoder or ENCODER_MODEL, answer, self.how.text)
        with waiting(f"looking for {self.how.text!r}"):
            selection, how = find(self.edited, self.how, device=usable_device(self.device))
        answer.fields["selection"] = selection.to_plain()
        chosen, shown = selection.chosen, None
        if chosen is not None:
            shown = selection.picture(self.edited)
        elif selection.masks:
            shown = selection.candidates(self.edited)
        where = ""
        if shown is not None and destination.target is not None:
            file = io.BytesIO()
            shown.save(file, "PNG")
            where = str(destination.target.beside("selected").save(file.getvalue(), how.text))
            answer.fields["selection"]["picture"] = where
        if chosen is None:
            raise NotFoundError(selection, f"the candidates: {where}" if where else "")
        say(
            f"{how.text!r}: {chosen.area:,.0f} pixels, fit {selection.score:.2f}"
            + (f"; shown in {where}" if where else "")
        )
        mask = chosen.fill_holes().grow(how.grow)
        request = replace(self, mask=mask, selected=how)
        if self.redrawn and self.redrawn.inpaint:
            return request  # seen as it was then
        padding = surroundings(mask) if self.padding is None else self.padding
        return replace(request, only_masked=True, padding=padding)

    def features(self, model: "LatentDiffusion") -> "list[Feature]":
        """The inpainting asked for."""
        from darkroom.generation.inpaint import feature

        return [feature.made(self._used(None), self.edited, self.mask)]

    def inputs(self) -> dict[str, Any]:
        """The pictures, for ``arguments_of``."""
        return {"edited": self.edited, "mask": self.mask}

    def params(self, seeds: tuple[int, ...]) -> "Params":
        """The redrawn picture's parameters with what was said put over them."""
        found = super().params(seeds)
        return replace(found, inpaint=self._used(found.inpaint))

    def _used(self, drawn: "UsedInpaint | None") -> "UsedInpaint":
        from darkroom.generation.metadata import UsedInpaint

        said = {
            "strength": self.strength,
            "extend": self.extend,
            "only_masked": self.only_masked or None,
            "padding": self.padding,
            "harmonise": self.harmonise or None,
            "feather": self.feather,
            "selected": self.selected,
        }
        if self.harmonise and self.feather is None and not (drawn and drawn.feather):
            said["feather"] = HARMONISED
        changes = {name: value for name, value in said.items() if value is not None}
        return replace(drawn or UsedInpaint(), **changes)


def _is_said(value: object) -> bool:
    """Whether a flag was given; 0 is."""
    return value is not None and value is not False and value != ()
