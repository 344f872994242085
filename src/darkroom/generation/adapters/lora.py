"""LoRAs in a run: low-rank changes of the U-Net and of the text towers."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Self

from torch import Tensor

from darkroom.adapters.lora import Lora as Attached
from darkroom.arguments import number, shown
from darkroom.diffusion.conditioning import Conditioning
from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.errors import (
    ArgumentError,
    CheckpointError,
    ConfigError,
    ModelMismatchError,
    PromptError,
)
from darkroom.errors import ModelNotFoundError as NotFound
from darkroom.generation.feature import Denoiser, Feature, Layer, Run
from darkroom.generation.metadata import Params, UsedLora
from darkroom.text.prompt import LoraRequest, extract_loras
from darkroom.weights.adapters.lora import Layers, LoraFile, divided, fit, networks, open_lora


class Lora(Feature):
    """Change the model by a LoRA, for one run.

    The changes are attached while the text is encoded and during each network call, and at no
    other time: a run that is abandoned, fails, or takes turns with another one leaves nothing
    behind. Several add up, in the order given.

    Args:
        source: a path, a registered name, a file's name in a model folder, or the tensors.
        weight: how strongly it acts; 1 as trained, 0 not at all, negative the opposite.
        text_weight: of the text towers' part; None is ``weight``.
        name: for metadata; None is the file's.

    Raises:
        ConfigError: a weight that is no finite number.
        ModelNotFoundError: there is no such LoRA.
        ModelMismatchError: the file is no LoRA; at the run: it is for another model.
        CheckpointError: the file cannot be read, or (at the run) has names of no layer.
    """

    layer = Layer.NETWORK

    def __init__(
        self,
        source: str | os.PathLike[str] | Mapping[str, Tensor],
        weight: float = 1.0,
        text_weight: float | None = None,
        *,
        name: str | None = None,
    ) -> None:
        weight = number("LoRA weight", weight, "a finite number")
        if text_weight is None:
            text_weight = weight
        text_weight = number("LoRA text weight", text_weight, "a finite number")
        if not (math.isfinite(weight) and math.isfinite(text_weight)):
            raise ConfigError(f"LoRA weights {weight}, {text_weight}: expected finite numbers")
        if isinstance(source, Mapping):
            tensors, embeddings = divided(source, name or "tensors")
            self.file = LoraFile(name=name or "tensors", tensors=tensors, embeddings=embeddings)
        else:
            if not isinstance(source, str | os.PathLike):
                raise ArgumentError(f"LoRA {shown(source)}: expected a file, a name or tensors")
            self.file = open_lora(source)
            self.file = replace(self.file, name=name or self.file.name)
        self.weight, self.text_weight, self.tagged = float(weight), float(text_weight), False
        self._fitted: tuple[object, Layers] | None = None  # to the model of this U-Net

    @classmethod
    def tag(cls, request: LoraRequest) -> Self:
        """What ``<lora:...>`` in a prompt asks for.

        Raises:
            PromptError: it cannot be had.
        """
        try:
            lora = cls(request.name, request.unet, request.text)
        except (NotFound, ModelMismatchError, CheckpointError) as error:
            raise PromptError(f"prompt asks for {request.source!r:.60}: {error}") from None
        lora.tagged = True
        return lora

    def prepare(self, run: Run) -> Run:
        layers = self._layers(run.model)
        for text in (False, True):  # what cannot be attached shows here, not at the first step
            with self._attached(run.model, text=text):
                pass
        if not layers.keys() - {"unet"} or self.text_weight == 0:
            return run
        changed = (*run.while_encoding, lambda: self._attached(run.model, text=True))
        return replace(run, while_encoding=changed, encoded={})

    def wrap(self, denoise: Denoiser, run: Run) -> Denoiser:
        if "unet" not in self._layers(run.model) or self.weight == 0:
            return denoise

        def changed(x: Tensor, sigma: float, cond: Conditioning) -> Tensor:
            with self._attached(run.model, text=False):
                return denoise(x, sigma, cond)

        return changed

    def describe(self) -> Mapping[str, Any]:
        used = UsedLora(
            name=self.file.name,
            weight=self.weight,
            text_weight=self.text_weight,
            sha256=self.file.sha256,
            tagged=self.tagged,
        )
        return {"loras": (used,)}

    def _layers(self, model: LatentDiffusion) -> Layers:
        if self._fitted is None or self._fitted[0] is not model.unet:
            self._fitted = model.unet, fit(self.file, model)
        return self._fitted[1]

    @contextmanager
    def _attached(self, model: LatentDiffusion, *, text: bool) -> Iterator[None]:
        parts = networks(model)
        with ExitStack() as stack:
            for part, layers in self._layers(model).items():
                if (part != "unet") == text:
                    weight = self.text_weight if text else self.weight
                    stack.enter_context(Attached(parts[part], layers, weight))
            yield


def with_tags(prompt: str, features: Sequence[Feature]) -> tuple[Feature, ...]:
    """``features``, and after them the LoRAs that the prompt asks for.

    Raises:
        PromptError: there is no such LoRA.
    """
    return (*features, *(Lora.tag(request) for request in extract_loras(prompt)[1]))


def again(params: Params, *, exact: bool = True) -> list[Feature]:
    """The LoRAs of a picture that its prompt does not ask for; ``generate`` takes those that do.

    Args:
        exact: refuse another file of the same name.

    Raises:
        ConfigError: a LoRA is missing, or is another one.
    """
    found: list[Feature] = []
    tags = iter(extract_loras(params.prompt)[1])
    for used in params.loras:
        tag = next(tags, None) if used.tagged else None
        if used.tagged and not exact:
            continue
        said = f"the picture was drawn with the LoRA {used.name!r}"
        if not used.sha256:
            raise ConfigError(f"{said}, given as tensors: pass the Lora feature to generate()")
        try:
            lora = Lora(tag.name if tag else used.name, used.weight, used.text_weight)
        except NotFound as error:
            raise NotFound(f"{said} (SHA-256 {used.sha256[:10]}...): {error}") from None
        if exact and lora.file.sha256 != used.sha256:
            raise ModelMismatchError(
                f"{said} of SHA-256 {used.sha256[:10]}..., the one found has "
                f"{lora.file.sha256[:10]}...: put that file back, or draw another picture with "
                "exact=False"
            )
        if not used.tagged:
            found.append(lora)
    return found
