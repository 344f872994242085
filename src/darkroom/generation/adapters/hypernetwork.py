"""Hypernetworks in a run: changed keys and values in the U-Net's attention."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from torch import Tensor, nn

from darkroom.adapters.hypernetwork import Attached
from darkroom.adapters.hypernetwork import Hypernetwork as Networks
from darkroom.arguments import number, shown
from darkroom.diffusion.conditioning import Conditioning
from darkroom.errors import (
    ArgumentError,
    CheckpointError,
    ConfigError,
    ModelMismatchError,
    ModelNotFoundError,
    PromptError,
)
from darkroom.generation.feature import Denoiser, Feature, Layer, Run
from darkroom.generation.metadata.params import Params, UsedHypernetwork
from darkroom.text.prompt import HypernetworkRequest, extract_hypernetworks
from darkroom.weights.adapters.finding import check_base
from darkroom.weights.adapters.hypernetworks import HypernetworkFile, open_hypernetwork
from darkroom.weights.adapters.lora import FAMILIES


class Hypernetwork(Feature):
    """Let a hypernetwork act in the U-Net, for one run.

    It is attached during each network call alone, so nothing is left behind. Several act one after
    another, in the order given.

    Args:
        source: a path, a registered name, a file's name in a model folder, or the networks.
        weight: how strongly it acts; 1 as trained, 0 not at all.
        name: for metadata; None is the file's.

    Raises:
        ConfigError: a weight that is no finite number.
        ModelNotFoundError: there is no such file.
        ModelMismatchError: the file is none; at the run: it is for another model.
        CheckpointError: the file cannot be used.
    """

    layer = Layer.NETWORK

    def __init__(
        self,
        source: str | os.PathLike[str] | Networks,
        weight: float = 1.0,
        *,
        name: str | None = None,
    ) -> None:
        weight = number("hypernetwork weight", weight, "a finite number")
        if not math.isfinite(weight):
            raise ConfigError(f"hypernetwork weight {weight}: expected a finite number")
        if isinstance(source, Networks):
            self.file = HypernetworkFile(name=name or "networks", network=source)
        else:
            if not isinstance(source, str | os.PathLike):
                raise ArgumentError(f"hypernetwork {shown(source)}: expected a file or a name")
            self.file = open_hypernetwork(source)
            self.file = replace(self.file, name=name or self.file.name)
        self.weight, self.tagged = float(weight), False

    @classmethod
    def tag(cls, request: HypernetworkRequest) -> Self:
        """What ``<hypernet:...>`` in a prompt asks for.

        Raises:
            PromptError: it cannot be had.
        """
        try:
            made = cls(request.name, request.weight)
        except (ModelNotFoundError, ModelMismatchError, CheckpointError) as error:
            raise PromptError(f"prompt asks for {request.source!r:.60}: {error}") from None
        made.tagged = True
        return made

    def prepare(self, run: Run) -> Run:
        ours = FAMILIES.get(run.model.family, "")
        check_base(self.file.path or self.file.name, self.file.base, ours, "a hypernetwork")
        with self._attached(run.model.unet):
            return run

    def wrap(self, denoise: Denoiser, run: Run) -> Denoiser:
        if self.weight == 0:
            return denoise

        def changed(x: Tensor, sigma: float, cond: Conditioning) -> Tensor:
            with self._attached(run.model.unet):
                return denoise(x, sigma, cond)

        return changed

    def _attached(self, unet: nn.Module) -> Attached:
        like = next(unet.parameters())
        self.file.network.to(like)
        try:
            return Attached(unet, self.file.network, self.weight)
        except ModelMismatchError as error:
            raise ModelMismatchError(f"{self.file.path or self.file.name}: {error}") from None

    def describe(self) -> Mapping[str, Any]:
        used = UsedHypernetwork(
            name=self.file.name, weight=self.weight, sha256=self.file.sha256, tagged=self.tagged
        )
        return {"hypernetworks": (used,)}


def with_tags(prompt: str, features: Sequence[Feature]) -> tuple[Feature, ...]:
    """``features``, and after them the hypernetworks that the prompt asks for.

    Raises:
        PromptError: there is no such file.
    """
    return (*features, *(Hypernetwork.tag(request) for request in extract_hypernetworks(prompt)))


def again(params: Params, *, exact: bool = True) -> list[Feature]:
    """The hypernetworks of a picture that its prompt does not ask for.

    Raises:
        ConfigError: one was given as networks.
        ModelNotFoundError: one is missing.
        ModelMismatchError: one is another file than it was.
    """
    found: list[Feature] = []
    tags = iter(extract_hypernetworks(params.prompt))
    for used in params.hypernetworks:
        tag = next(tags, None) if used.tagged else None
        if used.tagged and not exact:
            continue
        said = f"the picture was drawn with the hypernetwork {used.name!r}"
        if not used.sha256:
            raise ConfigError(f"{said}, given as networks: pass the feature to generate()")
        try:
            made = Hypernetwork(tag.name if tag else used.name, used.weight)
        except ModelNotFoundError as error:
            raise ModelNotFoundError(f"{said} (SHA-256 {used.sha256[:10]}...): {error}") from None
        if exact and made.file.sha256 != used.sha256:
            raise ModelMismatchError(
                f"{said} of SHA-256 {used.sha256[:10]}..., the one found has "
                f"{made.file.sha256[:10]}...: put that file back, or draw another picture with "
                "exact=False"
            )
        if not used.tagged:
            found.append(made)
    return found
