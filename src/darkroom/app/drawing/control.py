"""What ``darkroom control`` asks for. No torch."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from darkroom.app.drawing.depth import depth_guide, depth_net
from darkroom.app.drawing.request import Request
from darkroom.app.outcome import usage
from darkroom.app.values import existing
from darkroom.errors import ModelNotFoundError
from darkroom.names import ANNOTATOR_NAMES, DEFAULT_MODEL, did_you_mean

if TYPE_CHECKING:
    from PIL import Image

    from darkroom.diffusion.latent_diffusion import LatentDiffusion
    from darkroom.generation.feature import Feature
    from darkroom.generation.metadata import Params

NET = "emoji-edges"  # goes with the built-in model


@dataclass(frozen=True, kw_only=True)
class ControlRequest(Request):
    """One call of ``darkroom control``."""

    FILES: ClassVar[tuple[str, ...]] = (
        "photo", "hints", "kind", "low", "high", "annotator", "save_hint", "nets",
    )  # fmt: skip

    photo: Path | None = None
    hints: tuple[Path, ...] = ()
    kind: str | None = None
    low: float | None = None
    high: float | None = None
    annotator: str | None = None
    save_hint: Path | None = None
    nets: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()
    starts: tuple[float, ...] = ()
    ends: tuple[float, ...] = ()
    guess: bool = False
    fit: bool = False

    def check_inputs(self) -> None:
        """Whether the files are there, and the flags go together.

        Raises:
            UsageError: a flag would have no effect, or something is missing.
            ModelNotFoundError: a file is missing.
        """
        for path in (*([self.photo] if self.photo else []), *self.hints):
            existing(path, "picture")
        if not self.photo and not self.hints:
            raise usage("which hint? give a PHOTO to draw it from, or --hint FILE")
        if not self.photo:
            for name in ("kind", "low", "high", "annotator", "save_hint"):
                if getattr(self, name) is not None:
                    raise usage("has no effect without a PHOTO", f"--{name.replace('_', '-')}")
        if self.kind is not None and self.kind not in ANNOTATOR_NAMES:
            near = did_you_mean(self.kind, ANNOTATOR_NAMES)
            raise usage(
                f"{self.kind!r} is unknown{near}; one of {' '.join(ANNOTATOR_NAMES)}", "--kind"
            )
        for name in ("low", "high"):
            if getattr(self, name) is not None and self.kind not in (None, "canny"):
                raise usage(f"is an option of canny, not of {self.kind}", f"--{name}")
        if self.kind == "depth" or self.told:
            self._check_depth()
        if self.told:
            return
        if not self.redrawn and not self._acting and self.model_name != DEFAULT_MODEL:
            raise usage(f"which control network? give one that was made for {self.model_name}",
                        "--net")  # fmt: skip
        given, nets = len(self.hints) + bool(self.photo), self._count
        if given not in (1, nets):
            raise usage(f"{given} hints for {nets} nets; give one for all, or one for each")
        for name in ("weights", "starts", "ends"):
            if len(getattr(self, name)) not in (0, 1, nets):
                raise usage(f"give one for all {nets} nets, or one for each", f"--{name[:-1]}")

    @cached_property
    def told(self) -> bool:
        """The model is a depth checkpoint, which is told the map itself and needs no net."""
        from darkroom.app.drawing.depth import is_depth_checkpoint

        if self.redrawn:
            return self.redrawn.depth is not None
        try:
            return self.kind in (None, "depth") and is_depth_checkpoint(self.model_name)
        except ModelNotFoundError:
            return False  # said elsewhere, with advice

    def _check_depth(self) -> None:
        if not self.told:
            _ = self._acting  # there is one, or an error
        elif self.nets:
            raise usage(f"{self.model_name} is told depth itself; leave it out", "--net")
        elif self.photo is None and len(self.hints) != 1:
            raise usage("one depth map, please", "--hint")
        elif not self.redrawn:
            depth_net(self.model_name)

    @cached_property
    def _acting(self) -> tuple[str, ...]:
        """The nets that were named; for depth the one that is registered."""
        if self.nets or self.kind != "depth" or self.redrawn:
            if self.kind == "depth" and not self.redrawn:
                depth_net(self.model_name, self.nets[0])
            return self.nets
        found = depth_net(self.model_name)
        return (found,) if found else ()

    @property
    def _count(self) -> int:
        drawn = len(self.redrawn.controls) if self.redrawn else 0
        return len(self._acting) or drawn or 1

    def features(self, model: "LatentDiffusion") -> "list[Feature]":
        """The controls asked for."""
        from darkroom.generation.control import Control
        from darkroom.vision.annotators import KINDS

        if self.told:
            hint = self.hints[0] if self.hints else None
            guide = depth_guide(
                model, self.photo, hint, save=self.save_hint,
                network=lambda: self._annotator("depth", KINDS["depth"].files, False),
            )  # fmt: skip
            return [guide]
        hints = self._hints(model.settings.get("size", (512, 512)), model.autoencoder.factor)
        found: list[Feature] = []
        for i, (net, hint) in enumerate(zip(self._acting or (NET,), hints, strict=True)):
            weight, start, end = (
                _at(values, i, usual)
                for values, usual in ((self.weights, 1.0), (self.starts, 0.0), (self.ends, 1.0))
            )
            found.append(
                Control(opened(net, model), hint, weight, start, end, self.guess, fit=self.fit,
                        name=net)
            )  # fmt: skip
        return found

    def inputs(self) -> dict[str, Any]:
        """Hints and nets, for ``arguments_of``."""
        assert self.redrawn is not None
        if self.redrawn.depth:
            return {"photo": self.photo, "depth": self.hints[0] if self.hints else None}
        return {"hints": self._hints(self.redrawn.size, 1), "nets": self.nets}

    def params(self, seeds: tuple[int, ...]) -> "Params":
        """The redrawn picture's parameters with what was said put over them."""
        found = super().params(seeds)
        controls = []
        for i, used in enumerate(found.controls):
            said = {
                "weight": _at(self.weights, i, used.weight),
                "start": _at(self.starts, i, used.start),
                "end": _at(self.ends, i, used.end),
                "guess": self.guess or used.guess,
                "fit": self.fit or used.fit,
            }
            controls.append(replace(used, **said))
        return replace(found, controls=tuple(controls))

    def _hints(self, own: tuple[int, int], factor: int) -> "list[Image.Image]":
        from darkroom.images import open_image

        hints = [self._drawn(own, factor)] if self.photo else []
        hints += [open_image(path) for path in self.hints]
        return hints * self._count if len(hints) == 1 else hints

    def _drawn(self, own: tuple[int, int], factor: int) -> "Image.Image":
        """The hint of the photograph, drawn at the size at which it will act."""
        from darkroom.atomic import atomic_write
        from darkroom.generation.image import fitted
        from darkroom.images import open_image
        from darkroom.vision.annotators import KINDS, annotate

        assert self.photo is not None
        photo, kind = open_image(self.photo), self.kind or "canny"
        if self.redrawn or self.size:
            size = self.size or own
        else:
            scale = min(1.0, math.sqrt(own[0] * own[1] / (photo.width * photo.height)))
            sides = photo.height, photo.width
            height, width = (max(int(side * scale) // factor, 1) * factor for side in sides)
            size = height, width
        options = {"low": self.low, "high": self.high}
        options = {name: value for name, value in options.items() if value is not None}
        model = self._annotator(kind, KINDS[kind].files, KINDS[kind].optional)
        same = abs(photo.width / photo.height - size[1] / size[0]) < 0.05 or self.fit
        shown = fitted(photo, size) if same or not self.size else photo
        hint = annotate(kind, shown, model=model, **options)
        if self.save_hint is not None:
            kinds = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
            suffix = self.save_hint.suffix.lower()
            if suffix not in kinds:
                raise usage(f"{self.save_hint}: expected a name ending {' '.join(kinds)}",
                            "--save-hint")  # fmt: skip
            with atomic_write(self.save_hint) as file:
                hint.save(file, kinds[suffix])
        return hint

    def _annotator(self, kind: str, files: tuple[str, ...], optional: bool) -> Any:
        from darkroom.weights.load import load

        if self.annotator is not None:
            return load(self.annotator)
        for name in () if optional else files:
            try:
                return load(name)
            except ModelNotFoundError:
                continue
        if files and not optional:
            raise ModelNotFoundError(
                f"--kind {kind} needs a network, none of {', '.join(files)} is here; put one into "
                "a model folder, or name it with --annotator"
            )
        return None


def opened(name: str, model: "LatentDiffusion") -> Any:
    """A control network in the model's numbers, where the model is, as fast as it gets."""
    from darkroom.acceleration import accelerate, recommended
    from darkroom.models.control.controlnet import ControlNet
    from darkroom.weights.load import load

    net = load(name, dtype=model.dtype, device=model.device)
    if isinstance(net, ControlNet):
        accelerate(net, recommended(net))
    return net


def _at(values: tuple[float, ...], index: int, usual: float) -> float:
    if not values:
        return usual
    return values[0] if len(values) == 1 else values[index]
