"""Make k_diffusion.json: what k-diffusion's samplers make of one analytic denoiser.

k-diffusion needs packages that are not here (torchsde, torchdiffeq, torchvision), none of which its
samplers use when they are given their noise. So its file of samplers alone is loaded, from a wheel
that was unpacked (pip download --no-deps k-diffusion==0.1.1); the tests read what this wrote.
    python tests/vectors/k_diffusion.py k_diffusion/sampling.py tests/vectors/k_diffusion.json
"""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

SEED = 11
SHAPE = (1, 6)
LEVELS = (14.6, 9.2, 5.1, 2.7, 1.3, 0.6, 0.21, 0.03, 0.0)
RUNS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    # name: (k-diffusion's function without sample_, its options, ours)
    "euler_ancestral": ("euler_ancestral", {}, {}),
    "euler_ancestral eta": ("euler_ancestral", {"eta": 0.4}, {"eta": 0.4}),
    "heun": ("heun", {}, {}),
    "lms": ("lms", {}, {}),
    "dpm2": ("dpm_2", {}, {}),
    "dpm2_ancestral": ("dpm_2_ancestral", {}, {}),
    "dpm2_ancestral eta": ("dpm_2_ancestral", {"eta": 0.4}, {"eta": 0.4}),
    "dpmpp_2s": ("dpmpp_2s_ancestral", {}, {}),
    "dpmpp_2s eta": ("dpmpp_2s_ancestral", {"eta": 0.4}, {"eta": 0.4}),
    "dpmpp_2s quiet": ("dpmpp_2s_ancestral", {"eta": 0.0}, {"eta": 0.0}),
    "dpmpp_sde": ("dpmpp_sde", {}, {}),
    "dpmpp_sde eta": ("dpmpp_sde", {"eta": 0.4}, {"eta": 0.4}),
    "dpmpp_2m": ("dpmpp_2m", {}, {"lower_order_final": False}),
    "dpmpp_2m_sde": ("dpmpp_2m_sde", {}, {"lower_order_final": False}),
    "dpmpp_2m_sde heun": (
        "dpmpp_2m_sde",
        {"solver_type": "heun"},
        {"solver": "heun", "lower_order_final": False},
    ),
    "dpmpp_3m_sde": ("dpmpp_3m_sde", {}, {}),
}


def denoiser(x: Tensor, sigma: Any) -> Tensor:
    """Any smooth estimate of the clean image."""
    return x / (1 + sigma**2) + 0.3 * torch.tanh(x) * (sigma / (1 + sigma))


def start() -> Tensor:
    return torch.from_numpy(np.random.RandomState(SEED).standard_normal(SHAPE)) * LEVELS[0]


class Draws:
    """Unit noise, one draw after another."""

    def __init__(self) -> None:
        self.random = np.random.RandomState(SEED + 1)

    def fresh(self) -> Tensor:
        return torch.from_numpy(self.random.standard_normal(SHAPE))


class Increments(Draws):
    """Increments of a Brownian path in sigma: of the half of a step, then of the whole of it."""

    half: tuple[Tensor, float] | None = None

    def __call__(self, sigma: Tensor, to: Tensor) -> Tensor:
        unit = self.fresh()
        if self.half is None:
            self.half = unit, float(to)
            return unit
        (half, middle), self.half = self.half, None
        share = (float(sigma) - middle) / (float(sigma) - float(to))
        return share**0.5 * half + (1 - share) ** 0.5 * unit


def samplers(path: Path) -> ModuleType:
    """k-diffusion's ``sampling`` with stand-ins for what it imports and does not use here."""
    package = ModuleType("k_diffusion")
    package.__path__ = [str(path.parent)]
    utils = ModuleType("k_diffusion.utils")
    utils.append_dims = lambda x, n: x[(...,) + (None,) * (n - x.ndim)]  # type: ignore[attr-defined]
    stand_ins = {
        name: ModuleType(name) for name in ("torchdiffeq", "torchsde", "tqdm", "tqdm.auto")
    }
    stand_ins["torchdiffeq"].odeint = None  # type: ignore[attr-defined]
    stand_ins["tqdm.auto"].trange = lambda n, **_: range(n)  # type: ignore[attr-defined]
    stand_ins["tqdm.auto"].tqdm = None  # type: ignore[attr-defined]
    sys.modules.update(stand_ins, **{"k_diffusion": package, "k_diffusion.utils": utils})
    spec = importlib.util.spec_from_file_location("k_diffusion.sampling", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trajectory(module: ModuleType, function: str, options: dict[str, Any]) -> list[list[float]]:
    """x at each level, the last one included."""
    seen: list[Tensor] = []
    model = lambda x, sigma: denoiser(x, sigma[:, None])  # noqa: E731
    model.inner_model = SimpleNamespace(sigma_min=LEVELS[-2], sigma_max=LEVELS[0])  # type: ignore[attr-defined]
    draws = Draws()
    noise = Increments() if function == "dpmpp_sde" else lambda sigma, to: draws.fresh()
    if function not in ("heun", "lms", "dpm_2", "dpmpp_2m"):
        options = {**options, "noise_sampler": noise}
    last = getattr(module, f"sample_{function}")(
        model,
        start(),
        torch.tensor(LEVELS, dtype=torch.float64),
        callback=lambda now: seen.append(now["x"].clone()),
        **options,
    )
    return [x.flatten().tolist() for x in (*seen, last)]


if __name__ == "__main__":
    found = samplers(Path(sys.argv[1]))
    rows = {name: trajectory(found, how, theirs) for name, (how, theirs, _) in RUNS.items()}
    rounded = {name: [[round(v, 9) for v in x] for x in row] for name, row in rows.items()}
    Path(sys.argv[2]).write_text(json.dumps(rounded, indent=1).replace("\n   ", " ") + "\n")
