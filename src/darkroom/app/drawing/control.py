"""What ``darkroom control`` asks for. No torch."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from darkroom.app.drawing.depth import STRENGTH, depth_guide, depth_net
from darkroom.app.drawing.request import STRENGTH as FROM_IMAGE
from darkroom.app.drawing.request import Request
from darkroom.app.outcome import usage
from darkroom.app.values import existing
from darkroom.errors import ModelNotFoundError
from darkroom.names import ANNOTATOR_NAMES, DEFAULT_MODEL, did_you_mean

if TYPE_CHECKING:
    from PIL import Image

    from darkroom.diffusion.latent_diffusion import LatentDiffusion
    from darkroom.generation.feature import Feature
    from darkroom.generation.metadata import Params, UsedAnnotator

NET = "emoji-edges"  # goes with the built-in model


@dataclass(frozen=True, kw_only=True)
class ControlRequest(Request):
    """One call of ``darkroom control``."""

    FILES: ClassVar[tuple[str, ...]] = (
        "image", "photo", "hints", "kind", "low", "high", "annotator", "save_hint", "nets",
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
        kind = self.kind or (self._recorded.kind if self._recorded else "canny")
        for name in self._said:
            if kind != "canny":
                raise usage(f"is an option of canny, not of {kind}", f"--{name}")
        if self.photo and kind not in ANNOTATOR_NAMES:
            raise usage(
                f"the picture's hint was drawn by {kind!r}, which is not among "
                f"{' '.join(ANNOTATOR_NAMES)}; say --kind, or --hint FILE"
            )
        if self.redrawn and self.redrawn.inpaint:
            raise usage("a part of the picture was painted anew; use Python's redraw", "--from")
        if not self._starts:
            self.check_image()
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

    def named_by(self, redrawn: "Params") -> list[tuple[str, str, str]]:
        """And its control networks, and those that drew their hints."""
        found = super().named_by(redrawn)
        if not self.nets:
            found += [("control network", control.net, "--net") for control in redrawn.controls]
        if self.photo and not self.kind and not self.annotator and (old := self._recorded):
            from darkroom.vision.annotators import KINDS

            kind = KINDS.get(old.kind)
            files = (old.network,) if old.network else kind.files if kind else ()
            if old.network or (kind and not kind.optional):
                found += [("annotator", name, "--kind") for name in files[:1]]
        return found

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

    @property
    def _starts(self) -> bool:
        """A depth checkpoint starts from the photograph, ``strength`` says how far from it."""
        drawn = self.redrawn is not None and self.redrawn.image is not None
        return self.told and self.photo is not None and not self.image and not drawn

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
                model, self.photo, hint, (self.strength or STRENGTH) if self._starts else None,
                save=self.save_hint,
                network=lambda: self._annotator("depth", KINDS["depth"].files, False),
            )  # fmt: skip
            return self._begun([guide], model)
        hints = self._hints(model.settings.get("size", (512, 512)), model.autoencoder.factor)
        found: list[Feature] = []
        for i, (net, hint) in enumerate(zip(self._acting or (NET,), hints, strict=True)):
            weight, start, end = (
                _at(values, i, usual)
                for values, usual in ((self.weights, 1.0), (self.starts, 0.0), (self.ends, 1.0))
            )
            found.append(
                Control(opened(net, model), hint, weight, start, end, self.guess, fit=self.fit,
                        name=net, annotator=self._annotation if self._draws(i) else None)
            )  # fmt: skip
        return self._begun(found, model)

    def _begun(self, found: "list[Feature]", model: "LatentDiffusion") -> "list[Feature]":
        """And the picture of --image, at the size that the hint asks for."""
        from darkroom.generation.image import ImageToImage, fitted
        from darkroom.images import open_image

        if self.image is None:
            return found
        own = model.settings.get("size", (512, 512))
        size = self.size or found[0].natural_size(model.autoencoder.factor, own) or own
        picture = fitted(open_image(self.image), size)
        return [ImageToImage(picture, self.strength or FROM_IMAGE), *found]

    @property
    def is_exact(self) -> bool:
        """Also the hint is drawn as it was, as far as the flags say."""
        old = self._recorded
        if self.photo and old:
            options = any(old.options.get(name) != value for name, value in self._said.items())
            if options or self.kind not in (None, old.kind):
                return False
        return super().is_exact

    @property
    def _recorded(self) -> "UsedAnnotator | None":
        """What drew the hint of the redrawn picture."""
        controls = self.redrawn.controls if self.redrawn else ()
        return controls[0].annotator if controls else None

    @property
    def _said(self) -> dict[str, float]:
        """Options of the annotator."""
        options = {"low": self.low, "high": self.high}
        return {name: value for name, value in options.items() if value is not None}

    @cached_property
    def _annotation(self) -> "UsedAnnotator":
        """What draws the hint: as in the redrawn picture, with what was said put over it."""
        from darkroom.generation.metadata import UsedAnnotator
        from darkroom.vision.annotators import KINDS

        old = self._recorded
        if old and self.kind not in (None, old.kind):
            old = None
        kind = self.kind or (old.kind if old else "canny")
        options = {**KINDS[kind].options, **(old.options if old else {}), **self._said}
        network = self.annotator or (old.network if old else "")
        return UsedAnnotator(kind=kind, options=options, network=network)

    def _draws(self, index: int) -> bool:
        """Whether the net of this index gets the hint of the photograph."""
        return self.photo is not None and (index == 0 or not self.hints)

    def _is_same(self, index: int) -> bool:
        """Whether the hint given for this net is that of the redrawn picture."""
        from darkroom.generation.control.feature import seen

        place = index - 1 if self.photo else 0 if len(self.hints) == 1 else index
        if self.redrawn is None or place >= len(self.hints):
            return False
        drawn = self.redrawn.controls[index].hint
        return bool(drawn) and seen(self.hints[place], self.redrawn.size) == drawn

    def inputs(self) -> dict[str, Any]:
        """Hints and nets, for ``arguments_of``."""
        assert self.redrawn is not None
        if self.redrawn.depth:
            return {"photo": self.photo, "depth": self.hints[0] if self.hints else None}
        size, unknown = self.redrawn.size, (512, 512)
        hints = self._hints(size if all(size) else unknown, 8)
        return {"hints": hints, "nets": self.nets}

    def params(self, seeds: tuple[int, ...]) -> "Params":
        """The redrawn picture's parameters with what was said put over them."""
        found = super().params(seeds)
        if found.depth and (self.strength or self.image):
            strength = (self.strength or found.depth.strength) if self._starts else None
            found = replace(found, depth=replace(found.depth, strength=strength))
        controls = []
        resized = self.redrawn is not None and found.size != self.redrawn.size
        for i, used in enumerate(found.controls):
            if self._draws(i):
                annotator = self._annotation
                changed = used.annotator is not None and annotator != used.annotator
            else:
                annotator, changed = used.annotator if self._is_same(i) else None, False
            other = not self.is_exact and (resized or changed)
            said = {
                "hint": "" if other else used.hint,
                "annotator": annotator,
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
        photo, used = open_image(self.photo), self._annotation
        if self.size or (self.redrawn and all(self.redrawn.size)):
            size = self.size or own
        else:
            scale = min(1.0, math.sqrt(own[0] * own[1] / (photo.width * photo.height)))
            sides = photo.height, photo.width
            height, width = (max(int(side * scale) // factor, 1) * factor for side in sides)
            size = height, width
        kind = KINDS[used.kind]
        model = self._annotator(used.kind, kind.files, kind.optional, used.network)
        same = abs(photo.width / photo.height - size[1] / size[0]) < 0.05 or self.fit
        shown = fitted(photo, size) if same or not self.size else photo
        hint = annotate(used.kind, shown, model=model, **used.options)
        if self.save_hint is not None:
            kinds = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
            suffix = self.save_hint.suffix.lower()
            if suffix not in kinds:
                raise usage(f"{self.save_hint}: expected a name ending {' '.join(kinds)}",
                            "--save-hint")  # fmt: skip
            with atomic_write(self.save_hint) as file:
                hint.save(file, kinds[suffix])
        return hint

    def _annotator(self, kind: str, files: tuple[str, ...], optional: bool, name: str = "") -> Any:
        from darkroom.weights.load import load

        if self.annotator or name:
            return load(self.annotator or name)
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
    """A control network in the model's numbers, where the model is."""
    from darkroom.weights.load import load

    return load(name, dtype=model.dtype, device=model.device)


def _at(values: tuple[float, ...], index: int, usual: float) -> float:
    if not values:
        return usual
    return values[0] if len(values) == 1 else values[index]
