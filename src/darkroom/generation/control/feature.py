"""Networks that make a picture follow a hint: ControlNets and T2I-Adapters."""

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from darkroom.arguments import number, shown, switch
from darkroom.diffusion.conditioning import Conditioning
from darkroom.errors import ArgumentError, ConfigError, ModelMismatchError
from darkroom.generation.feature import Denoiser, Feature, Run
from darkroom.generation.fingerprint import fingerprint
from darkroom.generation.image import fitted
from darkroom.generation.metadata import Params, UsedAnnotator, UsedControl
from darkroom.images import ImageLike, open_image, to_tensor
from darkroom.models.control.change import ControlNetChange
from darkroom.models.control.controlnet import ControlNet
from darkroom.models.control.t2i_adapter import T2IAdapter
from darkroom.models.unet import UNet, UNetConfig
from darkroom.weights.load import load

Net = ControlNet | ControlNetChange | T2IAdapter
BASES = {768: "SD 1.x", 1024: "SD 2.x", 2048: "SDXL"}  # by the width of the text


class Control(Feature):
    """Have a network read a hint, and let what is drawn follow it.

    ControlNet (Zhang et al., arXiv:2302.05543) or T2I-Adapter (Mou et al., arXiv:2302.08453).
    Several add up. The result equals that of diffusers' pipelines.

    Args:
        net: what ``load`` gives for a control network, or its name, file or folder.
        hint: a drawing of what the network was trained on (edges, depths, poses, ...), as
            ``open_image`` takes it. It is resized to the run's size.
        weight: how strongly it acts; 1 as trained.
        start, end: the part of the run in which it acts, as fractions of its network calls.
        guess: act on the prompt's side of guidance alone, and less on fine details than on coarse
            ones, so that the hint tells what the prompt leaves out. ControlNets only.
        fit: crop a hint of another aspect than the picture's, around its centre.
        name: for metadata, where ``net`` is a network; None is what ``net`` says.
        annotator: for metadata, what drew the hint.

    Raises:
        ConfigError: a number out of its range; at the run: a hint of another aspect.
        ImageError: the hint cannot be read.
        ModelMismatchError: ``net`` is something else; at the run: it is for another model.
    """

    def __init__(
        self,
        net: Net | str | os.PathLike[str],
        hint: ImageLike,
        weight: float = 1.0,
        start: float = 0.0,
        end: float = 1.0,
        guess: bool = False,
        *,
        fit: bool = False,
        name: str | None = None,
        annotator: UsedAnnotator | None = None,
    ) -> None:
        weight = number("control weight", weight, "a finite number; 1 is usual")
        if not math.isfinite(weight):
            raise ArgumentError(f"control weight {weight}: expected a finite number; 1 is usual")
        start = number("control start", start, "0 <= start < end <= 1")
        end = number("control end", end, "0 <= start < end <= 1")
        guess, fit = switch("guess", guess), switch("fit", fit)
        if not 0 <= start < end <= 1:
            raise ArgumentError(f"control from {start} to {end}: expected 0 <= start < end <= 1")
        if isinstance(net, nn.Module):
            self.net, self.name = checked(net), name or ""
        else:
            if not isinstance(net, str | os.PathLike):
                raise ModelMismatchError(
                    f"{shown(net)} is no control network: give what dr.load opens, or its name"
                )
            self.net, self.name = checked(load(net)), name or os.fspath(net)
        if guess and isinstance(self.net, T2IAdapter):
            raise ConfigError("guess mode is for ControlNets; a T2I-Adapter has none")
        self.hint = open_image(hint)
        self.weight, self.interval = float(weight), (float(start), float(end))
        self.guess, self.fit, self.annotator = guess, fit, annotator
        self.notes: tuple[str, ...] = ()  # for the pictures
        self.sha256 = ""  # of the hint's pixels at the run's size; known after ``prepare``
        self._fitted: tuple[UNet, ControlNet] | None = None  # a change, on its base

    def natural_size(self, factor: int, own: tuple[int, int]) -> tuple[int, int]:
        """The hint's size, or its aspect at about ``own`` where it is larger than that."""
        width, height = self.hint.size
        scale = min(1.0, math.sqrt(own[0] * own[1] / (width * height)))
        height, width = (max(int(side * scale) // factor, 1) * factor for side in (height, width))
        return height, width

    def prepare(self, run: Run) -> Run:
        check_base(self.net, run)
        picture = self._picture(run)
        self.sha256 = seen(picture, run.size)
        return replace(run, notes=(*run.notes, *self.notes))

    def wrap(self, denoise: Denoiser, run: Run) -> Denoiser:
        if self.weight == 0:
            return denoise
        net, calls = self._network(run), run.levels.calls
        start, end = self.interval
        like = next(net.parameters())
        hint = pixels(self._picture(run), net).to(like)
        if isinstance(net, T2IAdapter):
            assert isinstance(run.model.unet, UNet)
            features = placed(net, hint, run, run.model.unet.config, self.weight)
        else:
            features, hint = (), net.hint(hint)

        def controlled(x: Tensor, sigma: float, cond: Conditioning) -> Tensor:
            if cond.call / calls < start or (cond.call + 1) / calls > end:
                return denoise(x, sigma, cond)
            if isinstance(net, T2IAdapter):
                return denoise(x, sigma, cond.adding_features(features))
            residuals = self._residuals(net, hint, run, x, sigma, cond)
            return denoise(x, sigma, cond if residuals is None else cond.adding(residuals))

        return controlled

    def _residuals(
        self, net: ControlNet, hint: Tensor, run: Run, x: Tensor, sigma: float, cond: Conditioning
    ) -> list[Tensor] | None:
        """What to add to the U-Net's skips; None where guess mode leaves every image alone."""
        guessing, rows = self.guess or net.config.pooled, None
        if guessing and cond.away is not None:
            rows = (cond.away == 0).nonzero()[:, 0]
            if not len(rows):
                return None
        timestep = run.levels.timestep(sigma)
        scaled = run.model.prediction.network_input(x.float(), sigma).to(hint)
        text, vector = cond.text.to(hint), None if cond.vector is None else cond.vector.to(hint)
        if rows is not None:
            rows = rows.to(hint.device)
            scaled, text = scaled[rows], text[rows]
            vector = None if vector is None else vector[rows]
        t = torch.full((len(scaled),), timestep, dtype=torch.float32, device=hint.device)
        residuals = net.residuals(scaled, t, text, hint, vector)
        scales = [self.weight] * len(residuals)
        if self.guess and not net.config.pooled:
            scales = [float(s) * self.weight for s in torch.logspace(-1, 0, len(residuals))]
        found = [r * scale for r, scale in zip(residuals, scales, strict=True)]
        if rows is None or len(rows) == len(x):
            return found
        return [r.new_zeros(len(x), *r.shape[1:]).index_copy(0, rows, r) for r in found]

    def _picture(self, run: Run) -> Image.Image:
        """The hint at the run's size.

        Raises:
            ConfigError: it has another aspect, and is not to be cropped.
        """
        height, width = run.size
        scale = max(width / self.hint.width, height / self.hint.height)
        over = max(self.hint.width * scale - width, self.hint.height * scale - height)
        if over >= run.model.autoencoder.factor and not self.fit:
            raise ConfigError(
                f"hint of {self.hint.width}x{self.hint.height} for a picture of {width}x{height}: "
                "give a size of the hint's aspect, or fit=True (--fit), which crops the hint"
            )
        return fitted(self.hint, run.size)

    def _network(self, run: Run) -> ControlNet | T2IAdapter:
        if not isinstance(self.net, ControlNetChange):
            return self.net
        unet = run.model.unet
        assert isinstance(unet, UNet)
        if self._fitted is None or self._fitted[0] is not unet:
            self._fitted = unet, self.net.on(unet)
        return self._fitted[1]

    def holds(self, run: Run, rows: int) -> int:
        """Bytes of the residuals that wait for the U-Net; for memory."""
        sizes = self.net.config.unet if not isinstance(self.net, T2IAdapter) else None
        if sizes is None:
            return 0
        cells = run.initial.shape[2] * run.initial.shape[3]
        number = next(self.net.parameters()).element_size()
        per_cell = sum((sizes.blocks + 1) * c / 4**i for i, c in enumerate(sizes.channels))
        return int(per_cell * cells * rows * number)

    def describe(self) -> Mapping[str, Any]:
        used = UsedControl(
            net=self.name,
            fingerprint=fingerprint(self.net),
            hint=self.sha256,
            weight=self.weight,
            start=self.interval[0],
            end=self.interval[1],
            guess=self.guess,
            fit=self.fit,
            annotator=self.annotator,
        )
        return {"controls": (used,)}


def again(
    params: Params,
    hints: Sequence[ImageLike] = (),
    nets: Sequence[Net | str | os.PathLike[str]] = (),
    *,
    exact: bool = True,
) -> list[Feature]:
    """The controls that drew a picture.

    Args:
        hints: of each, in the order of ``params.controls``.
        nets: of each; none = by the names in ``params``.

    Raises:
        ConfigError: a hint is missing, or is another one.
        ModelMismatchError: a network is another one.
    """
    used = params.controls
    if len(hints) != len(used):
        raise ConfigError(
            f"the picture was drawn after {len(used)} hints, {len(hints)} are given: give each, "
            "in order" if used else "the picture was drawn without hints: leave them out"
        )  # fmt: skip
    if nets and len(nets) != len(used):
        raise ConfigError(f"{len(nets)} control networks for {len(used)} hints: give one for each")
    features: list[Feature] = []
    for one, hint, net in zip(used, hints, nets or [None] * len(used), strict=True):
        if net is None and not one.net:
            raise ConfigError("the picture's metadata does not name its control network: give it")
        control = Control(
            one.net if net is None else net,
            hint, one.weight, one.start, one.end, one.guess, fit=one.fit, name=one.net or None,
            annotator=one.annotator,
        )  # fmt: skip
        if exact and one.fingerprint and fingerprint(control.net) != one.fingerprint:
            raise ModelMismatchError(
                f"control network {one.net!r} is not the one that drew the picture; load that one, "
                "or pass exact=False"
            )
        if one.hint and seen(control.hint, params.size) != one.hint:
            other = "the hint is not the one that the picture was drawn after"
            if exact:
                raise ConfigError(f"{other}; pass exact=False to use it all the same")
            control.notes = (other,)
        features.append(control)
    return features


def seen(hint: ImageLike, size: tuple[int, int]) -> str:
    """SHA-256 of what a network sees of a hint in a run of (height, width)."""
    shown = to_tensor(fitted(open_image(hint), size))
    return hashlib.sha256(shown.numpy().tobytes()).hexdigest()


def checked(net: object) -> Net:
    """``net`` if it is a control network.

    Raises:
        ModelMismatchError: it is something else.
    """
    if isinstance(net, ControlNet | ControlNetChange | T2IAdapter):
        return net
    raise ModelMismatchError(
        f"a {type(net).__name__} is no control network: give a ControlNet, Control-LoRA or "
        "T2I-Adapter"
    )


def check_base(net: Net, run: Run) -> None:
    """Refuse a network that was made for another U-Net.

    Raises:
        ModelMismatchError: it was.
        ConfigError: the run's size is none that it takes.
    """
    unet, name = run.model.unet, run.model.name or "the model"
    if not isinstance(unet, UNet):
        raise ModelMismatchError(f"{name}: control networks need a latent-diffusion U-Net")
    ours, latent = unet.config, run.model.autoencoder
    if isinstance(net, T2IAdapter):
        widths = net.config.channels[: len(ours.channels)]
        if widths != ours.channels or net.config.factor != latent.factor * _halvings(ours):
            raise ModelMismatchError(
                f"the T2I-Adapter (features of {', '.join(map(str, net.config.channels))} channels "
                f"from {net.config.factor} pixels on) is for another model than {name}, whose "
                f"levels have {', '.join(map(str, ours.channels))}: take one made for "
                f"{_base(ours)}"
            )
        cell = net.config.factor
        if any(side % cell for side in run.size):
            raise ConfigError(
                f"size {run.size[1]}x{run.size[0]}: the T2I-Adapter needs multiples of {cell}"
            )
        return
    theirs = net.config.unet
    mine = (theirs.text_channels, theirs.channels, theirs.vector_channels, theirs.in_channels)
    if mine != (ours.text_channels, ours.channels, ours.vector_channels, latent.channels):
        raise ModelMismatchError(
            f"the control network is for {_base(theirs)} (text of {theirs.text_channels} channels, "
            f"levels of {', '.join(map(str, theirs.channels))}), {name} is {_base(ours)} "
            f"({ours.text_channels}; {', '.join(map(str, ours.channels))}): take one made for it"
        )
    if net.config.factor != latent.factor:
        raise ModelMismatchError(
            f"the control network takes {net.config.factor} pixels of the hint for each latent, "
            f"{name} has {latent.factor}: take one made for it"
        )


def pixels(picture: Image.Image, net: ControlNet | T2IAdapter) -> Tensor:
    """(1, C, H, W) in [0, 1], in colour or grey as the network takes it."""
    if isinstance(net, T2IAdapter):
        channels = net.config.in_channels
    else:
        channels = net.config.conditioning_channels
    if channels not in (1, 3):
        raise ModelMismatchError(f"the control network takes hints of {channels} channels")
    values = to_tensor(picture if channels == 3 else picture.convert("L").convert("RGB"))
    return (values[:, :channels] + 1) / 2


def placed(
    net: T2IAdapter, hint: Tensor, run: Run, config: UNetConfig, weight: float
) -> tuple[Tensor | None, ...]:
    """An adapter's features where the U-Net adds them: for each stage, then for the middle.

    At the end of a level that attends to the text, before it is halved; of one that does not,
    after. What is left over goes to the middle.
    """
    features = [feature * weight for feature in net(hint)]
    stages: list[Tensor | None] = []
    for level, depth in enumerate(config.depth):
        last = level == len(config.depth) - 1
        ends: list[Tensor | None] = [None] * (config.blocks - 1 + (not last))
        place = len(ends) if not last and not depth else config.blocks - 1
        ends.insert(place, features.pop(0))
        stages += ends
    middle = features.pop(0) if features else None
    return (*stages, middle)


def _halvings(config: UNetConfig) -> int:
    """1, or 2 where the first level does not attend: its feature comes after it was halved."""
    return 1 if config.depth[0] else 2


def _base(config: UNetConfig) -> str:
    return BASES.get(config.text_channels, "a model of its own kind")
