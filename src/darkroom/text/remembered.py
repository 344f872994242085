"""A prompt encoder that reads each text once, for many runs of one model."""

from dataclasses import replace
from typing import Any

from darkroom.text.encoder import PromptEncoder
from darkroom.text.plan import PromptPlan


class RememberingEncoder:
    """Everything a ``PromptEncoder`` is, but ``plan`` keeps what it has encoded.

    Not for runs that change the text towers (LoRAs): those need the encoder itself.
    """

    def __init__(self, encoder: PromptEncoder) -> None:
        self._encoder = encoder
        self._plans: dict[Any, PromptPlan] = {}

    def plan(
        self,
        prompt: str | None,
        steps: int,
        size: tuple[int, int] | None = None,
        negative: bool = False,
    ) -> PromptPlan:
        """As ``PromptEncoder.plan``."""
        scheduled = "[" in (prompt or "")  # only such a prompt changes with the number of steps
        told = size if self._encoder.size_channels else None
        key = (prompt, steps if scheduled else None, told, negative)
        if key not in self._plans:
            self._plans[key] = self._encoder.plan(prompt, steps, size, negative)
        plan = self._plans[key]
        if scheduled or plan.segments[-1].until == steps:
            return plan
        return replace(plan, segments=(replace(plan.segments[-1], until=steps),))

    def __call__(self, *arguments: Any) -> Any:
        return self._encoder(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)


def remembering(encoder: Any) -> Any:
    """``encoder`` with a memory, where it is ours; else itself."""
    return RememberingEncoder(encoder) if isinstance(encoder, PromptEncoder) else encoder
