"""What other programs call samplers and spacings, and how their names are read.

Names of samplers are in the rows of ``darkroom.sampling.table``, those of spacings here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from darkroom.names import SPACING_NAMES
from darkroom.sampling.table import TABLE

SPACINGS: Mapping[str, tuple[str, ...]] = {  # by ours: A1111's labels, the first one is written
    "karras": ("Karras",),
    "exponential": ("Exponential", "Polyexponential"),
    "leading": ("DDIM", "DDIM Uniform", "ddim_uniform"),
    "trailing": ("Simple", "Turbo"),
    "linspace": ("Uniform", "Normal", "native"),
    "sgm_uniform": ("SGM Uniform", "SGMUniform", "sgm_uniform"),
    "beta": ("Beta",),
}
COUNTED = ("simple", "beta")  # of ComfyUI
WRITTEN: Mapping[str, str] = {name: next(iter(row.a1111), name) for name, row in TABLE.items()}


@dataclass(frozen=True)
class Method:
    """How a picture's noise was taken away, in Darkroom's words.

    ``sampler`` or ``spacing`` is "" where Darkroom has none such, or the name says nothing.
    """

    sampler: str = ""
    spacing: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    questions: Mapping[str, str] = field(default_factory=dict)  # as of ``Origin``
    counted: str = ""  # the schedule in ComfyUI's words, if it is told by its timesteps

    def timesteps(self, steps: int) -> tuple[int, ...]:
        """Those of a schedule that only nearly is ``spacing``; else none."""
        if not self.counted or not 0 < steps <= 1000:
            return ()
        from darkroom.diffusion.spacing import comfyui_timesteps

        return comfyui_timesteps(self.counted, steps)


def of_a1111(name: str, schedule: str) -> Method:
    """The method behind "Sampler" and "Schedule type".

    Before version 1.9 one name said both, as in "DPM++ 2M Karras"; without a schedule it meant the
    uniform one. Since then "Automatic" is the sampler's own.
    """
    label, said = _folded(name), _folded(schedule)
    if label not in _A1111:
        for theirs in sorted(_SPACING, key=len, reverse=True):
            if label.endswith(f" {theirs}"):
                label, said = label.removesuffix(theirs).strip(), said or theirs
                break
    automatic = TABLE[_A1111[label][0]].automatic if label in _A1111 else ""
    if said not in ("", "automatic"):
        return _made(label, _A1111, name, schedule or said, _SPACING.get(said))
    if not said and (label not in _A1111 or automatic not in ("", "leading")):
        automatic = "linspace"
    return _made(label, _A1111, name, automatic, automatic)


def of_k(name: str, scheduler: str) -> Method:
    """The method behind ComfyUI's and Fooocus' "sampler_name" and "scheduler"."""
    method = _made(name, _K, name, scheduler, _SPACING.get(_folded(scheduler)))
    return replace(method, counted=scheduler) if scheduler in COUNTED else method


def of_novelai(name: str, schedule: str) -> Method:
    """The method behind NovelAI's "sampler" and "noise_schedule"."""
    if name in ("ddim", "ddim_v3"):
        return of_a1111("DDIM", "DDIM")
    schedule = schedule or "native"
    return _made(name.removeprefix("k_"), _K, name, schedule, _SPACING.get(_folded(schedule)))


def of_invoke(name: str) -> Method:
    """The method behind InvokeAI's "scheduler", whose ``_k`` means Karras' levels."""
    spacing = "karras" if name.endswith("_k") else ""
    return _made(name.removesuffix("_k"), _INVOKE, name, spacing, spacing)


def of_dream(name: str, steps: int) -> Method:
    """The method behind the "sampler" of InvokeAI before its third version.

    Its k-diffusion samplers took Karras' levels below 29 steps.
    """
    if not name.startswith("k_"):
        return of_invoke(name)
    spacing = "karras" if steps < 29 else "linspace"
    return _made(name.removeprefix("k_"), _INVOKE, name, spacing, spacing)


def _made(name: str, known: "Names", said: str, schedule: str, spacing: str | None) -> Method:
    """The method behind a name, among those of one program.

    Args:
        said: the whole name, for the question.
        schedule: as the program says it.
        spacing: ours; None = there is none such.
    """
    questions = {}
    sampler, options = known.get(name, ("", {}))
    if not sampler:
        what = f"its sampler {_shown(said)} is none of Darkroom's" if said.strip() else ""
        questions["sampler"] = what or "it does not say its sampler"
    if spacing is None or (spacing and spacing not in SPACING_NAMES):
        spacing = ""
        questions["spacing"] = f"its noise schedule {_shown(schedule)} is none of Darkroom's"
    return Method(sampler, spacing, options, questions)


def _shown(name: str) -> str:
    return repr(name if len(name) <= 40 else f"{name[:40]}...")


def _folded(label: str) -> str:
    return " ".join(label.lower().split())


Names = Mapping[str, tuple[str, Mapping[str, Any]]]  # theirs -> our sampler and its options
_A1111: Names = {
    _folded(label): (name, options)
    for name, row in TABLE.items()
    for label, options in row.a1111.items()
}
_K: Names = {
    label: (name, options) for name, row in TABLE.items() for label, options in row.comfyui.items()
}
_INVOKE: Names = {
    label: (name, options) for name, row in TABLE.items() for label, options in row.invokeai.items()
}
_SPACING = {_folded(label): ours for ours, labels in SPACINGS.items() for label in labels}
