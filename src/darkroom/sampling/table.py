"""One row for each sampler: everything that is known of it besides its arithmetic. No torch.

A sampler is one function in ``diffusion/samplers/`` and one row here. What its scheduler
configuration is called, the command line's help and completion, and the names that other programs
give it are all derived from the row.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from darkroom.errors import ConfigError
from darkroom.sampling import classes
from darkroom.sampling.classes import SchedulerClass

Labels = Mapping[str, Mapping[str, Any]]  # what a program calls it -> the options that it means


@dataclass(frozen=True, kw_only=True)
class SamplerRow:
    """What a sampler is called, and how it reads a scheduler configuration.

    Attributes:
        scheduler: the class of diffusers whose levels and settings it takes.
        when: the settings, and their values, with which that class is this sampler. None: the
            class is another sampler's; this one borrows it.
        edm: the class for networks that are preconditioned as EDM's.
        settings: what it takes in place of the class's defaults.
        options: its own options, from every setting of the class.
        calls: of the network for each level but the last, which takes one.
        strides: it lands a fixed number of training timesteps further down.
        distilled: it visits timesteps of the distillation, unless another spacing is asked for.
        stochastic: it adds noise on the way.
        eta: its option ``eta`` is what A1111 calls Eta.
        order: of convergence, as a reader would be told it.
        a1111: the labels of AUTOMATIC1111's web UI and its forks; the first is written.
        automatic: the spacing that the web UI takes with it where none is named; "" is the
            checkpoint's own.
        comfyui: the names of ComfyUI, Fooocus and NovelAI, which are k-diffusion's in style.
        invokeai: the names of InvokeAI, without the ``_k`` that means karras.
        note: one sentence for the documentation.
    """

    scheduler: SchedulerClass
    when: Mapping[str, tuple[Any, ...]] | None = field(default_factory=dict)
    edm: SchedulerClass | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda read: {}
    calls: int = 1
    strides: bool = False
    distilled: bool = False
    stochastic: bool = False
    eta: bool = False
    order: str = "1"
    a1111: Labels = field(default_factory=dict)
    automatic: str = ""
    comfyui: Labels = field(default_factory=dict)
    invokeai: Labels = field(default_factory=dict)
    note: str = ""


_SDE = ("sde-dpmsolver", "sde-dpmsolver++")
_VARIANCES = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large"}


def _ddpm(read: Mapping[str, Any]) -> dict[str, Any]:
    # a variance that is not in the table is refused by the sampler's own check
    return {"variance": _VARIANCES.get(read["variance_type"], read["variance_type"])}


def _multistep(low: int, high: int) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    def options(read: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "order": min(max(read["solver_order"], low), high),
            "solver": "heun" if read["solver_type"] == "heun" else "midpoint",
            "lower_order_final": read["lower_order_final"],
            "euler_at_final": read["euler_at_final"],
            # SDE-DPM-Solver++(3M) has no other form
            **({} if low == 3 else {"plus": read["algorithm_type"] not in _WITHOUT_PLUS}),
        }

    return options


_WITHOUT_PLUS = ("dpmsolver", "sde-dpmsolver")


def _singlestep(read: Mapping[str, Any]) -> dict[str, Any]:
    if read["algorithm_type"] == "sde-dpmsolver":
        raise ConfigError(
            "scheduler setting algorithm_type='sde-dpmsolver' is not supported by dpm_singlestep: "
            "expected dpmsolver, dpmsolver++ or sde-dpmsolver++"
        )
    return {
        "order": read["solver_order"],
        "solver": "heun" if read["solver_type"] == "heun" else "midpoint",
        "lower_order_final": read["lower_order_final"],
        "plus": read["algorithm_type"] not in _WITHOUT_PLUS,
        "eta": 1.0 if read["algorithm_type"] in _SDE else 0.0,
    }


def _deis(read: Mapping[str, Any]) -> dict[str, Any]:
    return {"order": read["solver_order"], "lower_order_final": read["lower_order_final"]}


def _unipc(read: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "order": read["solver_order"],
        "scale": "bh1" if read["solver_type"] == "bh1" else "bh2",
        "lower_order_final": read["lower_order_final"],
        "data": read["predict_x0"],
        "without_corrector": tuple(read["disable_corrector"]),
    }


TABLE: dict[str, SamplerRow] = {
    "ddpm": SamplerRow(
        scheduler=classes.DDPM,
        options=_ddpm,
        stochastic=True,
        a1111={"DDPM": {}},
        automatic="leading",
        comfyui={"ddpm": {}},
        invokeai={"ddpm": {}},
        note="The first; wants many steps.",
    ),
    "ddim": SamplerRow(
        scheduler=classes.DDIM,
        strides=True,
        eta=True,
        a1111={"DDIM": {}},
        automatic="leading",
        invokeai={"ddim": {}},
        note="Option `eta` adds noise: 0 is none, 1 is DDPM.",
    ),
    "pndm": SamplerRow(
        scheduler=classes.PNDM,
        strides=True,
        order="up to 4",
        a1111={"PLMS": {}, "PNDM": {}},
        automatic="leading",
        comfyui={"plms": {}},
        invokeai={"pndm": {}, "plms": {}},
        note="Stable Diffusion 1's own (PLMS); one call more than steps.",
    ),
    "lms": SamplerRow(
        scheduler=classes.LMS,
        order="up to 4",
        a1111={"LMS": {}},
        automatic="linspace",
        comfyui={"lms": {}},
        invokeai={"lms": {}},
        note="Option `order`, 1 to 4.",
    ),
    "heun": SamplerRow(
        scheduler=classes.HEUN,
        calls=2,
        order="2",
        a1111={"Heun": {}},
        automatic="linspace",
        comfyui={"heun": {}},
        invokeai={"heun": {}},
        note="Two calls a step.",
    ),
    "euler": SamplerRow(
        scheduler=classes.EULER,
        edm=classes.EDM_EULER,
        a1111={"Euler": {}},
        automatic="linspace",
        comfyui={"euler": {}, "ddim": {}},
        invokeai={"euler": {}},
        note="Stable Diffusion XL's own.",
    ),
    "euler_ancestral": SamplerRow(
        scheduler=classes.EULER_ANCESTRAL,
        stochastic=True,
        eta=True,
        a1111={"Euler a": {}},
        automatic="linspace",
        comfyui={"euler_ancestral": {}},
        invokeai={"euler_a": {}},
        note="SDXL Turbo's own. Option `eta`: how much noise.",
    ),
    "dpmpp_2m": SamplerRow(
        scheduler=classes.DPM_MULTISTEP,
        edm=classes.EDM_MULTISTEP,
        options=_multistep(1, 3),
        order="2",
        a1111={"DPM++ 2M": {}},
        automatic="karras",
        comfyui={"dpmpp_2m": {}},
        invokeai={"dpmpp_2m": {}, "dpmpp_2": {}, "dpmpp_3m": {"order": 3}},
        note="A good default. Options `order` (1 to 3), `solver`.",
    ),
    "dpmpp_2m_sde": SamplerRow(
        scheduler=classes.DPM_MULTISTEP,
        when={"algorithm_type": _SDE},
        edm=classes.EDM_MULTISTEP,
        settings={"algorithm_type": "sde-dpmsolver++"},
        options=_multistep(1, 2),
        stochastic=True,
        eta=True,
        order="2",
        a1111={"DPM++ 2M SDE": {}, "DPM++ 2M SDE Heun": {"solver": "heun"}},
        automatic="exponential",
        comfyui={
            "dpmpp_2m_sde": {},
            "dpmpp_2m_sde_gpu": {},
            "dpmpp_2m_sde_heun": {"solver": "heun"},
            "dpmpp_2m_sde_heun_gpu": {"solver": "heun"},
        },
        invokeai={"dpmpp_2m_sde": {}},
        note="Options `eta`, `solver`.",
    ),
    "dpmpp_3m_sde": SamplerRow(
        scheduler=classes.DPM_MULTISTEP,
        when={"algorithm_type": _SDE, "solver_order": (3,)},
        edm=classes.EDM_MULTISTEP,
        settings={"algorithm_type": "sde-dpmsolver++", "solver_order": 3},
        options=_multistep(3, 3),
        stochastic=True,
        eta=True,
        order="3",
        a1111={"DPM++ 3M SDE": {}},
        automatic="exponential",
        comfyui={"dpmpp_3m_sde": {}, "dpmpp_3m_sde_gpu": {}},
        note="As k-diffusion has it; diffusers 0.42 has the sign of one constant wrong.",
    ),
    "dpmpp_sde": SamplerRow(
        scheduler=classes.DPM_SDE,
        calls=2,
        stochastic=True,
        eta=True,
        order="2",
        a1111={"DPM++ SDE": {}, "DPM SDE": {}},
        automatic="karras",
        comfyui={"dpmpp_sde": {}, "dpmpp_sde_gpu": {}},
        invokeai={"dpmpp_sde": {}},
        note="Two calls a step. Noise comes from the picture's seed, so other programs' pictures "
        "of the same seed differ.",
    ),
    "dpmpp_2s": SamplerRow(
        scheduler=replace(classes.DPM2_ANCESTRAL, rounds_karras=False),
        when=None,
        calls=2,
        stochastic=True,
        eta=True,
        order="2",
        a1111={"DPM++ 2S a": {}},
        automatic="karras",
        comfyui={"dpmpp_2s_ancestral": {}},
        invokeai={"dpmpp_2_a": {}},
        note="k-diffusion's DPM++ 2S ancestral; two calls a step. Option `eta`: 0 is without "
        "noise.",
    ),
    "dpm2": SamplerRow(
        scheduler=classes.DPM2,
        calls=2,
        order="2",
        a1111={"DPM2": {}, "KDPM2": {}},
        automatic="karras",
        comfyui={"dpm_2": {}},
        invokeai={"kdpm_2": {}, "dpm_2": {}},
        note="Two calls a step.",
    ),
    "dpm2_ancestral": SamplerRow(
        scheduler=classes.DPM2_ANCESTRAL,
        calls=2,
        stochastic=True,
        eta=True,
        order="2",
        a1111={"DPM2 a": {}, "KDPM2 a": {}},
        automatic="karras",
        comfyui={"dpm_2_ancestral": {}},
        invokeai={"kdpm_2_a": {}, "dpm_2_a": {}},
        note="Two calls a step. Option `eta`.",
    ),
    "deis": SamplerRow(
        scheduler=classes.DEIS,
        options=_deis,
        order="2",
        a1111={"DEIS": {}},
        automatic="linspace",
        comfyui={"deis": {}},
        invokeai={"deis": {}},
        note="In log sigma, as diffusers'. Option `order`, 1 to 3.",
    ),
    "dpm_singlestep": SamplerRow(
        scheduler=classes.DPM_SINGLESTEP,
        options=_singlestep,
        order="2",
        a1111={"DPM++ 2S": {}},
        invokeai={"dpmpp_2s": {}},
        note="Restarts every second (or third) level. Options `order`, `solver`, `eta`.",
    ),
    "unipc": SamplerRow(
        scheduler=classes.UNIPC,
        options=_unipc,
        order="3",
        a1111={"UniPC": {"order": 3, "scale": "bh1"}},
        automatic="linspace",
        comfyui={
            "uni_pc": {"order": 3, "scale": "bh1"},
            "uni_pc_bh2": {"order": 3, "scale": "bh2"},
        },
        invokeai={"unipc": {}},
        note="A predictor of order 2 and a corrector that adds one.",
    ),
    "lcm": SamplerRow(
        scheduler=classes.LCM,
        options=lambda read: {"scaling": read["timestep_scaling"]},
        distilled=True,
        stochastic=True,
        order="-",
        a1111={"LCM": {}},
        comfyui={"lcm": {}},
        invokeai={"lcm": {}},
        note="For LCM networks and LCM LoRAs: 4 to 8 steps, guidance 1 to 2.",
    ),
    "tcd": SamplerRow(
        scheduler=classes.TCD,
        distilled=True,
        stochastic=True,
        order="-",
        a1111={"TCD": {}},
        comfyui={"tcd": {}},
        invokeai={"tcd": {}},
        note="For TCD and Hyper-SD LoRAs: 4 to 8 steps, guidance 1 (off). Option `eta`, 0 to 1.",
    ),
}


def meant(name: str) -> str | None:
    """The sampler that another program calls by ``name``; None when none does."""
    folded = name.strip().casefold()
    for sampler, row in TABLE.items():
        own = () if row.when is None else (row.scheduler.name,)
        if folded in map(str.casefold, (*row.a1111, *row.comfyui, *row.invokeai, *own)):
            return sampler
    shorter = folded.removesuffix(" karras").removesuffix(" exponential").removeprefix("k_")
    return meant(shorter) if shorter != folded else None
