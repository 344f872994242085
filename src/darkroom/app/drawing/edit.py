"""What ``darkroom edit`` asks for. No torch."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from darkroom.app.drawing.request import Request
from darkroom.app.outcome import usage
from darkroom.app.values import existing
from darkroom.names import EDIT_MODEL

if TYPE_CHECKING:
    from darkroom.diffusion.latent_diffusion import LatentDiffusion
    from darkroom.generation.feature import Feature
    from darkroom.generation.metadata import Params, UsedInpaint

HARMONISED = 16  # pixels over which --harmonise fades, if --feather does not say


@dataclass(frozen=True, kw_only=True)
class EditRequest(Request):
    """One call of ``darkroom edit``; ``strength`` is that of the change."""

    DEFAULT: ClassVar[str] = EDIT_MODEL
    FILES: ClassVar[tuple[str, ...]] = ("edited", "mask")

    edited: Path
    mask: Path | None = None
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
        if self.padding is not None and not (self.only_masked or (drawn and drawn.only_masked)):
            raise usage("has no effect without --only-masked", "--padding")
        if self.mask:
            existing(self.mask, "mask")
        elif not self.extend and not (drawn and any(drawn.extend)):
            from darkroom.images import peek

            if not peek(self.edited).has_transparency_data:
                raise usage(
                    "which part? give --mask FILE (white is painted anew), --extend L,T,R,B, or "
                    "a picture with transparent parts"
                )
        if self.redrawn and self.redrawn.image:
            raise usage("the picture started from another one too; use Python's redraw", "--from")

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
        }
        if self.harmonise and self.feather is None and not (drawn and drawn.feather):
            said["feather"] = HARMONISED
        changes = {name: value for name, value in said.items() if value is not None}
        return replace(drawn or UsedInpaint(), **changes)
