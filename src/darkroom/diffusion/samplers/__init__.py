"""Samplers: one generator function each, by family."""

from darkroom.diffusion.samplers.ancestral import ddim, ddpm, euler_ancestral, lcm
from darkroom.diffusion.samplers.dpm_solver import dpmpp_2m, dpmpp_2m_sde, dpmpp_3m_sde
from darkroom.diffusion.samplers.limit import Limit
from darkroom.diffusion.samplers.linear_multistep import lms, pndm
from darkroom.diffusion.samplers.runge_kutta import euler, heun
from darkroom.diffusion.samplers.step import SAMPLERS, Denoise, Sampler, Step
from darkroom.diffusion.samplers.unipc import unipc

__all__ = [
    "SAMPLERS",
    "Denoise",
    "Limit",
    "Sampler",
    "Step",
    "ddim",
    "ddpm",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_3m_sde",
    "euler",
    "euler_ancestral",
    "heun",
    "lcm",
    "lms",
    "pndm",
    "unipc",
]
