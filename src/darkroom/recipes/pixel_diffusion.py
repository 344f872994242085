"""Train diffusion on the pixels of a small labelled set (Ho et al., arXiv:2006.11239).

The network predicts noise on images in [-1, 1]. Its class is a learned embedding, dropped at times
for classifier-free guidance (Ho & Salimans, arXiv:2207.12598): class K of a set with K classes
stands for none.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from darkroom.charts import line_chart
from darkroom.config import Count, Size
from darkroom.diffusion.pixel_diffusion import PixelDiffusion
from darkroom.diffusion.prediction import PREDICTIONS
from darkroom.diffusion.sampling_config import SamplingConfig
from darkroom.diffusion.schedule import NoiseSchedule
from darkroom.errors import ConfigError
from darkroom.generation import pixels
from darkroom.images import sheet
from darkroom.models.unconditional_unet import UnconditionalUNet, UnconditionalUNetConfig
from darkroom.recipes import run as train_shipped
from darkroom.recipes.digit_classifier import judge, load_classifier
from darkroom.recipes.runs import Run
from darkroom.training.data import Images, class_tar, idx
from darkroom.training.fit import Draw, FitOptions, FitStep, Training, step_generator
from darkroom.training.loss import min_snr, stratified
from darkroom.weights.save import save, write_json

PREDICTED = {"noise": "epsilon", "velocity": "v_prediction", "sample": "sample"}


@dataclass(frozen=True, kw_only=True)
class Config:
    """``recipe = "pixel-diffusion"``, and ``"mnist"`` in its correct mode."""

    data: Path  # a folder with MNIST's four files, or NAME-train.tar beside NAME-test.tar
    out: Path  # the run: state, log, and the finished model in ``out/model``
    conditional: bool = False
    prediction: str = "noise"
    empty: float = 0.1  # fraction of classes dropped
    gamma: float = 0.0  # of min-SNR weights; 0 = every level weighs the same
    mirror: bool = False  # half of the pictures left to right
    held_out: Count = 1000  # pictures for the validation loss
    evaluate_every: Count = 200  # steps
    save_every: Size = 100  # steps
    sampler: str = "ddpm"  # of what the report shows; its noise forgives a short training
    steps: Size = 25
    guidance: float = 2.0
    samples: Count = 1000  # drawn for the judge
    classifier: Path | None = None  # a run of digit-classifier; judges what is drawn
    model: UnconditionalUNetConfig = field(default_factory=UnconditionalUNetConfig)
    fit: FitOptions = field(default_factory=FitOptions)


def train(config: Config) -> Iterator[FitStep]:
    """Train, yielding every step; at the end write ``out/model`` and judge what it draws."""
    torch.manual_seed(config.fit.seed)
    images, held_out = read_images(config.data)
    classes = len(images.classes) if config.conditional else 0
    levels, sides = len(config.model.channels), images.pixels.shape[2:]
    if any(side % 2 ** (levels - 1) for side in sides):
        raise ConfigError(
            f"model.channels: {levels} levels halve the pictures {levels - 1} times, which "
            f"{sides[1]}x{sides[0]} pixels do not allow; use fewer"
        )
    network = replace(
        config.model,
        in_channels=images.pixels.shape[1],
        out_channels=images.pixels.shape[1],
        classes=classes and classes + 1,
    )
    model = UnconditionalUNet(network)
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    training = Training(model, config.fit)
    run = Run(config.out, "pixel-diffusion", config, training, config.save_every)
    run.held = images.pixels.nbytes + held_out.pixels.nbytes
    run.remark(*images.remarks, *held_out.remarks)
    schedule, prediction = NoiseSchedule.linear(), PREDICTIONS[config.prediction]()
    sigmas = torch.tensor(schedule.sigmas)

    def error(net: UnconditionalUNet, clean: Tensor, label: Tensor, noise: Tensor, t: Tensor):
        """Squared error (B,) of the prediction, weighted."""
        sigma = sigmas.to(t.device)[t][:, None, None, None]
        x = prediction.network_input(clean + sigma * noise, sigma)
        output = net(x, t, label) if classes else net(x, t)
        squares = (output - prediction.target(clean, noise, sigma)).square().mean((1, 2, 3))
        weight = (
            min_snr(prediction, sigma, config.gamma) if config.gamma else torch.ones_like(sigma)
        )
        return squares * weight.flatten()

    def loss(draw: Draw) -> Tensor:
        g, count = draw.generator, config.fit.batch
        clean, label = batch(images, count, config.mirror, g)
        label = torch.where(torch.rand(count, generator=g) < config.empty, classes, label)
        noise, t = torch.randn(clean.shape, generator=g), stratified(count, len(sigmas), g)
        return error(model, *map(draw.share, (clean, label, noise, t))).mean()

    @torch.no_grad()
    def validation_loss() -> float:
        """On pictures held out, with noise that stays the same, of the averaged weights."""
        g, count = step_generator(config.fit.seed, -1), min(config.held_out, len(held_out))
        clean, label = scaled(held_out.pixels[:count]), labels_of(held_out)[:count]
        noise, t = torch.randn(clean.shape, generator=g), stratified(count, len(sigmas), g)
        net, place = averaged(training, network), config.fit.place
        parts = zip(
            *(whole.to(place).split(250) for whole in (clean, label, noise, t)), strict=True
        )
        return torch.cat([error(net, *part) for part in parts]).mean().item()

    for step in run.steps(loss):
        if run.due(config.evaluate_every):
            run.note(validation_loss=validation_loss())
        yield step
    finished = PixelDiffusion(
        unet=averaged(training, network),
        schedule=schedule,
        prediction=prediction,
        sampling=sampling(config.prediction),
        settings={"size": tuple(images.pixels.shape[2:])},
    )
    save(finished, config.out / "model")
    yield from report(config, run, finished, images, held_out)
    run.finish(unet=finished.unet)


def read_images(data: Path) -> tuple[Images, Images]:
    """What to learn from, and what to hold out."""
    if data.suffix == ".tar":
        return class_tar(data), class_tar(data.with_name(data.name.replace("train", "test")))
    return idx(data), idx(data, train=False)


def batch(images: Images, size: int, mirror: bool, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random pictures (B, C, H, W) in [-1, 1] and their classes (B,)."""
    index = torch.randint(len(images), (size,), generator=g)
    clean = scaled(images.pixels[index])
    if mirror:
        turned = torch.rand(size, 1, 1, 1, generator=g) < 0.5
        clean = torch.where(turned, clean.flip(-1), clean)
    return clean, labels_of(images)[index]


def scaled(pixels: Tensor) -> Tensor:
    """uint8 -> [-1, 1]."""
    return pixels.float() / 127.5 - 1


def labels_of(images: Images) -> Tensor:
    """(N,) classes; zeros where the set has none."""
    return torch.zeros(len(images)).long() if images.labels is None else images.labels


def averaged(training: Training, network: UnconditionalUNetConfig) -> UnconditionalUNet:
    """The network with the moving average of its weights."""
    model = UnconditionalUNet(network)
    model.load_state_dict(training.averaged())
    return model.to(training.options.place).requires_grad_(False).eval()


def sampling(prediction: str) -> SamplingConfig:
    """DDPM's own schedule; samplers begin at its last timestep, which is nearly pure noise."""
    settings = {
        "beta_start": 1e-4,
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "prediction_type": PREDICTED[prediction],
        "timestep_spacing": "trailing",
        "clip_sample": True,
    }
    return SamplingConfig(sampler="ddpm", settings=settings)


def report(
    config: Config, run: Run, model: PixelDiffusion, images: Images, held_out: Images
) -> Iterator[FitStep]:
    """Noise curve, noised pictures, samples; for digits also what a judge reads in them."""
    run.report.chart(noise_curve(model.schedule))
    run.picture("noised", noised(model.schedule, scaled(held_out.pixels[:4])), "fig. 16.12's noise")
    classes = len(images.classes) if config.conditional else 0
    shown = torch.arange(100) % classes if classes else None
    drawn = samples(config, model, images, list(range(100)), shown)
    words = f"{config.sampler}, {config.steps} steps"
    if shown is not None:
        words += (
            f", guidance {config.guidance:g}; a column for each of: {', '.join(images.classes)}"
        )
    run.picture("samples", sheet(drawn, 10), words)
    if images.pixels.shape[1:] != (1, 28, 28) or config.samples == 0:
        return
    path = config.classifier or config.out / "digit-classifier"
    if config.classifier is None:
        recipe = Path(__file__).with_name("digit-classifier.toml")
        yield from train_shipped(recipe, {"data": str(config.data), "out": str(path)})
    classifier = load_classifier(path / "classifier.safetensors")
    wanted = torch.arange(config.samples) % classes if classes else None
    drawn = samples(config, model, images, list(range(1000, 1000 + config.samples)), wanted)
    found = judge(classifier, drawn / 2 + 0.5, wanted, images, held_out)
    write_json(config.out / "judged.json", found)
    run.table("Judged by the digit classifier", ("what", "value"), list(found.items()))


def samples(
    config: Config, model: PixelDiffusion, images: Images, seeds: list[int], labels: Tensor | None
) -> Tensor:
    """One picture for each seed: (N, C, H, W) in [-1, 1]."""
    done = []
    for start in range(0, len(seeds), 100):
        part = slice(start, start + 100)
        steps = pixels.draw(
            model,
            images.pixels.shape[1:],
            seeds[part],
            None if labels is None else labels[part],
            sampler=config.sampler,
            steps=config.steps,
            guidance=1.0 if labels is None else config.guidance,
            empty=len(images.classes),
        )
        *_, last = steps
        done.append(last.x.clamp(-1, 1).cpu())
    return torch.cat(done)


def noised(schedule: NoiseSchedule, images: Tensor):
    """Each of (N, C, H, W) in a row of its own, at timesteps 0, 99, 199, ..., the last."""
    g, last = torch.Generator().manual_seed(0), len(schedule) - 1
    rows = []
    for image in images:
        noise = torch.randn(image.shape, generator=g)
        for t in range(11):
            share = schedule.alpha_bar(t * last / 10)
            rows.append(share**0.5 * image + (1 - share) ** 0.5 * noise)
    return sheet(torch.stack(rows).clamp(-1, 1), 11)


def noise_curve(schedule: NoiseSchedule) -> str:
    """What is left of the picture and what there is of noise, by timestep: SVG."""
    curves: dict[str, list[tuple[float, float]]] = {"picture": [], "noise": []}
    for t in range(len(schedule)):
        share = schedule.alpha_bar(t)
        curves["picture"].append((t, share**0.5))
        curves["noise"].append((t, (1 - share) ** 0.5))
    return line_chart(curves, title="x_t = picture + noise", x="timestep t", y="factor")
