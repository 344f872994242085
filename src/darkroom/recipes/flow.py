"""Train a normalising flow on MNIST (Kingma & Dhariwal, arXiv:1807.03039)."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from darkroom.config import Count, Size
from darkroom.images import sheet
from darkroom.models.flow import Flow, FlowConfig, bits_per_dimension, dequantise
from darkroom.recipes.runs import Run
from darkroom.training.data import Images, idx
from darkroom.training.fit import Draw, FitOptions, FitStep, Training


@dataclass(frozen=True, kw_only=True)
class Config:
    """``recipe = "flow"``."""

    data: Path = Path("data/mnist")  # a folder with MNIST's four files
    out: Path = Path("runs/flow")  # the run: state, log, and the finished ``out/flow.safetensors``
    temperature: float = 0.85  # deviation of the latents that are drawn (section 5)
    evaluate_every: Count = 200  # steps
    save_every: Size = 200  # steps
    model: FlowConfig = field(default_factory=FlowConfig)
    fit: FitOptions = field(default_factory=FitOptions)


def train(config: Config) -> Iterator[FitStep]:
    """Train, yielding every step; at the end write ``out/flow.safetensors``."""
    torch.manual_seed(config.fit.seed)
    digits, held_out = idx(config.data), idx(config.data, train=False)
    model = Flow(config.model)
    model.initialise(dequantise(digits.pixels[:256], torch.rand(digits.pixels[:256].shape)))
    training = Training(model, config.fit)
    run = Run(config.out, "flow", config, training, config.save_every)
    run.held = digits.pixels.nbytes + held_out.pixels.nbytes

    def loss(draw: Draw) -> Tensor:
        g = draw.generator
        index = torch.randint(len(digits), (config.fit.batch,), generator=g)
        pixels = digits.pixels[index]
        image = dequantise(draw.share(pixels), draw.share(torch.rand(pixels.shape, generator=g)))
        return bits_per_dimension(model.log_prob(image), image[0].numel()).mean()

    for step in run.steps(loss):
        if run.due(config.evaluate_every):
            run.note(bits_per_dimension=bits(model, held_out, 200))
        yield step
    model.load_state_dict(training.averaged())
    g = torch.Generator().manual_seed(config.fit.seed)
    samples = 2 * model.sample(100, g, config.temperature) - 1
    drawn = sheet(samples, 10, pad=0)
    run.picture("samples", drawn, f"100 samples at temperature {config.temperature}, not chosen")
    run.finish(flow=model)


@torch.no_grad()
def bits(model: Flow, images: Images, count: int) -> float:
    """Bits per dimension of the first ``count`` images, with one draw of dequantisation noise."""
    g = torch.Generator().manual_seed(0)
    pixels, place = images.pixels[:count], next(model.parameters()).device
    total = 0.0
    for part in pixels.split(250):
        image = dequantise(part.to(place), torch.rand(part.shape, generator=g).to(place))
        total += bits_per_dimension(model.log_prob(image), image[0].numel()).sum().item()
    return total / len(pixels)
