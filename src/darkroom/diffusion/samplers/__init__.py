"""Samplers: one generator function each, by family.

Each module of this folder is imported, so that its samplers are listed.
"""

import importlib
import pkgutil

from darkroom.diffusion.samplers.limit import Limit
from darkroom.diffusion.samplers.step import SAMPLERS, Denoise, Sampler, Step

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    importlib.import_module(_module.name)

__all__ = ["SAMPLERS", "Denoise", "Limit", "Sampler", "Step"]
