"""What a prompt says at each noise level of a run: the prompt language, made tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

from darkroom.diffusion.conditioning import Conditioning
from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.diffusion.levels import Levels


class Segment(Protocol):
    """What a prompt says until a step."""

    @property
    def until(self) -> int: ...  # the first step that it no longer covers
    @property
    def parts(self) -> "Sequence[Part]": ...  # conditionings of one image


class Plan(Protocol):
    """A prompt with its changes over the steps."""

    @property
    def segments(self) -> Sequence[Segment]: ...
    @property
    def report(self) -> object: ...  # what was understood; its str() is for people


@runtime_checkable
class Planner(Protocol):
    """A text encoder that knows the prompt language; others encode the text as it stands."""

    def plan(
        self,
        prompt: str | None,
        steps: int,
        size: tuple[int, int] | None = None,
        negative: bool = False,
    ) -> Plan: ...


@dataclass(frozen=True)
class Part:
    """One of the prompts that AND joins."""

    cond: Conditioning  # of a batch of B images
    weight: float


@dataclass(frozen=True)
class Timeline:
    """Parts by step. A step is found by its noise level, so any sampler may ask in any order."""

    sigmas: tuple[float, ...]  # that the run visits, decreasing, without the final 0
    segments: tuple[tuple[int, tuple[Part, ...]], ...]  # (first step that it no longer covers, ...)
    report: object = None

    @classmethod
    def of(
        cls,
        model: LatentDiffusion,
        prompt: str | None,
        levels: Levels,
        size: tuple[int, int],
        batch: int,
        negative: bool = False,
    ) -> Self:
        """Encode ``prompt``: each distinct text once, expanded over the batch.

        Args:
            prompt: None is what guidance compares with when there is no negative prompt.
            size: (height, width) of the picture.
            negative: it is what guidance moves away from; XL may be told other sizes then.

        Raises:
            PromptError: when the prompt names what is not there.
        """
        sigmas = tuple(sorted({sigma for sigma in levels.sigmas if sigma > 0}, reverse=True))
        encoder = model.text_encoder
        if not isinstance(encoder, Planner):
            cond = encoder([prompt or ""], size).repeated(batch).to(model.device, model.dtype)
            return cls(sigmas, ((len(sigmas), (Part(cond, 1.0),)),))
        plan = encoder.plan(prompt, len(sigmas), size, negative)
        expanded: dict[int, Conditioning] = {}

        def batched(cond: Conditioning) -> Conditioning:
            if id(cond) not in expanded:
                expanded[id(cond)] = cond.repeated(batch).to(model.device, model.dtype)
            return expanded[id(cond)]

        return cls(
            sigmas,
            tuple(
                (segment.until, tuple(Part(batched(p.cond), p.weight) for p in segment.parts))
                for segment in plan.segments
            ),
            plan.report,
        )

    def at(self, sigma: float) -> tuple[Part, ...]:
        """The parts at a noise level; between two levels, those of the lower one."""
        step = step_of(self.sigmas, sigma)
        for until, parts in self.segments:
            if step < until:
                return parts
        return self.segments[-1][1]

    @property
    def parts(self) -> int:
        """The most parts that any step has."""
        return max(len(parts) for _, parts in self.segments)


def step_of(sigmas: Sequence[float], sigma: float) -> int:
    """Index of the visited level at ``sigma``, or of the next lower one."""
    return sum(level > sigma * (1 + 1e-6) for level in sigmas)
