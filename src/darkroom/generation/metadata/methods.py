"""What other programs call samplers and spacings: one row for each, and how to read their names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from darkroom.names import SAMPLER_NAMES, SPACING_NAMES


@dataclass(frozen=True)
class Row:
    """One sampler.

    Attributes:
        sampler: Darkroom's name.
        label: A1111's; "" = it has none.
        automatic: the spacing that A1111 takes with it where none is named; "" = the model's own.
        k: the names in k-diffusion's style: ComfyUI, Fooocus, and NovelAI with ``k_`` before them.
        invoke: InvokeAI's, without the ``_k`` of its Karras levels.
        options: with which it is theirs; none = the checkpoint's.
        aliases: further labels of A1111's relatives (SD.Next, Forge).
    """

    sampler: str
    label: str = ""
    automatic: str = ""
    k: tuple[str, ...] = ()
    invoke: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()


ROWS = (
    Row("euler", "Euler", "linspace", ("euler", "ddim"), ("euler",)),  # ComfyUI's ddim is Euler
    Row("euler_ancestral", "Euler a", "linspace", ("euler_ancestral",), ("euler_a",)),
    Row("heun", "Heun", "linspace", ("heun",), ("heun",)),
    Row("lms", "LMS", "linspace", ("lms",), ("lms",)),
    Row("dpm2", "DPM2", "karras", ("dpm_2",), ("kdpm_2", "dpm_2"), aliases=("KDPM2",)),
    Row("dpm2_ancestral", "DPM2 a", "karras", ("dpm_2_ancestral",), ("kdpm_2_a", "dpm_2_a"),
        aliases=("KDPM2 a",)),
    Row("dpmpp_2s", "DPM++ 2S a", "karras", ("dpmpp_2s_ancestral",), ("dpmpp_2_a",)),
    Row("dpmpp_sde", "DPM++ SDE", "karras", ("dpmpp_sde", "dpmpp_sde_gpu"), ("dpmpp_sde",),
        aliases=("DPM SDE",)),
    Row("dpmpp_2m", "DPM++ 2M", "karras", ("dpmpp_2m",), ("dpmpp_2m", "dpmpp_2")),
    Row("dpmpp_2m", invoke=("dpmpp_3m",), options={"order": 3}),
    Row("dpmpp_2m_sde", "DPM++ 2M SDE", "exponential", ("dpmpp_2m_sde", "dpmpp_2m_sde_gpu"),
        ("dpmpp_2m_sde",)),
    Row("dpmpp_2m_sde", "DPM++ 2M SDE Heun", "exponential",
        ("dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu"), options={"solver": "heun"}),
    Row("dpmpp_3m_sde", "DPM++ 3M SDE", "exponential", ("dpmpp_3m_sde", "dpmpp_3m_sde_gpu")),
    Row("dpm_singlestep", "DPM++ 2S", "", (), ("dpmpp_2s",)),
    Row("deis", "DEIS", "linspace", ("deis",), ("deis",)),
    Row("unipc", "UniPC", "linspace", ("uni_pc",), (), {"order": 3, "scale": "bh1"}),
    Row("unipc", k=("uni_pc_bh2",), options={"order": 3, "scale": "bh2"}),
    Row("unipc", invoke=("unipc",)),
    Row("ddpm", "DDPM", "leading", ("ddpm",), ("ddpm",)),
    Row("ddim", "DDIM", "leading", (), ("ddim",)),
    Row("pndm", "PLMS", "leading", ("plms",), ("pndm", "plms"), aliases=("PNDM",)),
    Row("lcm", "LCM", "", ("lcm",), ("lcm",)),
    Row("tcd", "TCD", "", ("tcd",), ("tcd",)),
)  # fmt: skip
SPACINGS: Mapping[str, tuple[str, ...]] = {  # by ours: A1111's labels, the first one is written
    "karras": ("Karras",),
    "exponential": ("Exponential", "Polyexponential"),
    "leading": ("DDIM", "DDIM Uniform", "ddim_uniform"),
    "trailing": ("Simple", "Turbo"),
    "linspace": ("Uniform", "Normal", "native"),
    "sgm_uniform": ("SGM Uniform", "SGMUniform", "sgm_uniform"),
    "beta": ("Beta",),
}
WRITTEN: Mapping[str, str] = {  # A1111's labels of samplers, by ours; the first row counts
    row.sampler: row.label for row in reversed(ROWS) if row.label
}


@dataclass(frozen=True)
class Method:
    """How a picture's noise was taken away, in Darkroom's words.

    ``sampler`` or ``spacing`` is "" where Darkroom has none such, or the name says nothing.
    """

    sampler: str = ""
    spacing: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    questions: Mapping[str, str] = field(default_factory=dict)  # as of ``Origin``


def of_a1111(name: str, schedule: str) -> Method:
    """The method behind "Sampler" and "Schedule type".

    Before version 1.9 one name said both, as in "DPM++ 2M Karras"; without a schedule it meant the
    uniform one. Since then "Automatic" is the sampler's own.
    """
    label, said = name.strip(), schedule.strip()
    row = _A1111.get(_folded(label))
    if row is None:
        for theirs in sorted(_SPACING, key=len, reverse=True):
            if _folded(label).endswith(f" {theirs}"):
                label, said = label[: -len(theirs)].strip(), said or theirs
                row = _A1111.get(_folded(label))
                break
    if _folded(said) == "automatic" or (not said and row and row.automatic in ("", "leading")):
        spacing = row.automatic if row else ""
    elif not said:
        spacing = "linspace"
    else:
        return _made(row, name, said, _SPACING.get(_folded(said)))
    return _made(row, name, spacing, spacing)


def of_k(name: str, scheduler: str) -> Method:
    """The method behind ComfyUI's and Fooocus' "sampler_name" and "scheduler"."""
    return _made(_K.get(name.strip()), name, scheduler, _SPACING.get(_folded(scheduler)))


def of_novelai(name: str, schedule: str) -> Method:
    """The method behind NovelAI's "sampler" and "noise_schedule"."""
    if name in ("ddim", "ddim_v3"):
        return _made(_A1111["ddim"], name, "DDIM", "leading")
    found = _K.get(name.removeprefix("k_"))
    return _made(found, name, schedule or "native", _SPACING.get(_folded(schedule or "native")))


def of_invoke(name: str) -> Method:
    """The method behind InvokeAI's "scheduler", whose ``_k`` means Karras' levels."""
    spacing = "karras" if name.endswith("_k") else ""
    return _made(_INVOKE.get(name.removesuffix("_k")), name, spacing, spacing)


def of_dream(name: str, steps: int) -> Method:
    """The method behind the "sampler" of InvokeAI before its third version.

    Its k-diffusion samplers took Karras' levels below 29 steps.
    """
    if not name.startswith("k_"):
        return of_invoke(name)
    spacing = "karras" if steps < 29 else "linspace"
    return _made(_INVOKE.get(name.removeprefix("k_")), name, spacing, spacing)


def _made(row: Row | None, name: str, schedule: str, spacing: str | None) -> Method:
    questions = {}
    if row is None or row.sampler not in SAMPLER_NAMES:
        row = None
        what = f"its sampler {_shown(name)} is none of Darkroom's" if name.strip() else ""
        questions["sampler"] = what or "it does not say its sampler"
    if spacing is None or (spacing and spacing not in SPACING_NAMES):
        spacing = ""
        questions["spacing"] = f"its noise schedule {_shown(schedule)} is none of Darkroom's"
    if row is None:
        return Method("", spacing, {}, questions)
    return Method(row.sampler, spacing, row.options, questions)


def _shown(name: str) -> str:
    return repr(name if len(name) <= 40 else f"{name[:40]}...")


def _folded(label: str) -> str:
    return " ".join(label.lower().split())


_A1111 = {_folded(label): row for row in ROWS for label in (row.label, *row.aliases) if label}
_K = {name: row for row in ROWS for name in row.k}
_INVOKE = {name: row for row in ROWS for name in row.invoke}
_SPACING = {_folded(label): ours for ours, labels in SPACINGS.items() for label in labels}
