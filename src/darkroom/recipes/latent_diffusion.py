"""Train text-to-image latent diffusion from nothing (Rombach et al., arXiv:2112.10752).

First the text tower alone learns what captions look like: a linear map of its features is
regressed on the clean latents. A caption costs a sixth of a U-Net step, so what must be memorised
(which name means which picture) is learned where it is cheap. Then tower and U-Net are trained
together to predict the velocity (Salimans & Ho, arXiv:2202.00512); captions are dropped for
guidance (Ho & Salimans, arXiv:2207.12598).
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.config import Count, Size, from_dict
from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.diffusion.prediction import PREDICTIONS
from darkroom.diffusion.sampling_config import SamplingConfig
from darkroom.generation.generate import develop
from darkroom.generation.guidance import Guidance
from darkroom.images import grid
from darkroom.models.autoencoder import Autoencoder, AutoencoderConfig
from darkroom.models.clip_text import ClipTextModel, TextConfig
from darkroom.models.unet import UNet, UNetConfig
from darkroom.recipes.runs import Run
from darkroom.text.encoder import PromptEncoder, Tower
from darkroom.text.tokenizer import Tokenizer
from darkroom.text.tokenizer_training import train_tokenizer
from darkroom.training.captions import Variant, all_texts, caption, render, variants
from darkroom.training.data import Captioned, captioned, open_data
from darkroom.training.fit import Draw, FitOptions, FitStep, Training, step_generator
from darkroom.training.saving import read_state
from darkroom.vision.encoder import token_ids
from darkroom.weights.load import load
from darkroom.weights.save import save

PART = 128  # variants whose pictures are in memory at once


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Fractions of a batch, by kind of picture (see ``darkroom.training.captions``)."""

    plain: float = 0.66
    rare: float = 0.05
    tinted: float = 0.13
    grounds: float = 0.11
    both: float = 0.05


@dataclass(frozen=True, kw_only=True)
class Config:
    """``recipe = "latent-diffusion"``."""

    data: Path  # pictures with captions or classes in any format that ``open_data`` knows
    autoencoder: Path  # what the autoencoder recipe wrote
    out: Path  # the run: state, log, and the finished model in ``out/model``
    name: str = "model"
    size: Size = 64  # pixels
    noun: str = ""  # what all the pictures are, for captions such as "cat face emoji"
    vocabulary: Size = 1280  # tokens
    prediction: str = "velocity"
    empty: float = 0.1  # fraction of captions dropped
    emphasis: float = 1.0  # t = T u^emphasis for uniform u: below 1, more of high noise
    tints: Count = 4  # recoloured variants of each picture
    grounds: Count = 4  # variants over a colour
    both: Count = 2
    mirrored: bool = False  # every picture the other way round, too
    prompts: tuple[str, ...] = ()  # drawn for the report; none = some of the captions
    mixture: Mixture = field(default_factory=Mixture)
    save_every: Size = 500  # steps
    sampler: str = "dpmpp_2m"  # what the finished model names as its own defaults
    steps: Size = 20
    guidance: float = 4.0
    recall: float = 0.1  # weight of the regression while the U-Net is trained
    text: TextConfig = field(default_factory=TextConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    text_fit: FitOptions = field(default_factory=lambda: FitOptions(steps=0))
    fit: FitOptions = field(default_factory=FitOptions)


class Reader(nn.Module):
    """A text tower, and a linear picture of what it read."""

    def __init__(self, config: Config, latent: torch.Size) -> None:
        super().__init__()
        self.text = ClipTextModel(config.text)
        self.latent, self.end = latent, config.text.end
        self.picture = nn.Linear(config.text.channels, latent.numel())
        nn.init.normal_(self.text.token.weight, std=0.02)
        nn.init.normal_(self.text.position.weight, std=0.02)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, S, C), and the latents (B, c, h, w) that their mean from the end on says."""
        features = self.text(ids).last
        after = ((ids == self.end).cumsum(1) > 0)[..., None].to(features)
        mean = (features * after).sum(1) / after.sum(1)
        return features, self.picture(mean).unflatten(1, self.latent)


class Networks(nn.Module):
    """What is trained together."""

    def __init__(self, config: Config, reader: Reader) -> None:
        super().__init__()
        self.reader = reader
        self.unet = UNet(config.unet)


def train(config: Config) -> Iterator[FitStep]:
    """Train, yielding every step; at the end write ``out/model``, in half precision."""
    torch.manual_seed(config.fit.seed)
    pictures = captioned(open_data(config.data))
    config.out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(
        all_texts(pictures.rows, config.noun), config.vocabulary, config.text.positions
    )
    tokenizer.save(config.out / "tokenizer")
    config = replace(config, text=replace(config.text, vocabulary=len(tokenizer)))
    config = replace(config, text=replace(config.text, end=tokenizer.eos))
    autoencoder = load_autoencoder(config.autoencoder)
    bank = Bank(config, pictures, tokenizer, autoencoder)

    reader = Reader(config, bank.shape)
    yield from learn_to_read(config, reader, bank)
    networks = Networks(config, reader)
    networks.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    training = Training(networks, config.fit)
    run = Run(config.out, "latent-diffusion", config, training, config.save_every)
    run.held = bank.nbytes
    run.remark(*bank.remarks)
    prediction = PREDICTIONS[config.prediction]()
    sigmas = torch.tensor(sampling(config).schedule().sigmas)

    def loss(draw: Draw) -> Tensor:
        g = draw.generator
        clean, ids = bank.batch(config.fit.batch, config.empty, g)
        noise = torch.randn(clean.shape, generator=g)
        # stratified over the levels: one timestep from each of B equal parts
        count = len(clean)
        u = (torch.randperm(count, generator=g) + torch.rand(count, generator=g)) / count
        t = (u**config.emphasis * len(sigmas)).long().clamp_max(len(sigmas) - 1)
        sigma = sigmas[t][:, None, None, None]
        clean, ids, noise, t, sigma = map(draw.share, (clean, ids, noise, t, sigma))
        x = prediction.network_input(clean + sigma * noise, sigma)
        features, recalled = reader(ids)
        output = networks.unet(x.contiguous(memory_format=torch.channels_last), t, features)
        denoising = (output - prediction.target(clean, noise, sigma)).square().mean()
        return denoising + config.recall * (recalled - clean).square().mean()

    yield from run.steps(loss)
    networks.load_state_dict(training.averaged())
    save(assemble(config, networks, autoencoder, tokenizer), config.out / "model")
    draw_samples(run, config, bank.rows)
    run.finish(text=reader.text, unet=networks.unet)


def learn_to_read(config: Config, reader: Reader, bank: "Bank") -> Iterator[FitStep]:
    """The first stage, as a run of its own in ``out/text``."""
    training = Training(reader, config.text_fit)
    run = Run(config.out / "text", "latent-diffusion", config, training, config.save_every)
    run.held = bank.nbytes

    def loss(draw: Draw) -> Tensor:
        g = step_generator(config.fit.seed, ~draw.step)  # not the draws of the second stage
        clean, ids = map(draw.share, bank.batch(config.text_fit.batch, 0.0, g))
        return (reader(ids)[1] - clean).square().mean()

    yield from run.steps(loss)


def draw_samples(
    run: Run, config: Config, rows: Sequence[Mapping[str, Any]], count: int = 12
) -> None:
    """Pictures of the finished model, for the report."""
    names = list(dict.fromkeys(row["text"] for row in rows))
    prompts = config.prompts or names[:: max(1, len(names) // count)][:count]
    model = load(config.out / "model", dtype="float32", device=config.fit.place)
    drawn = [develop(model, text, Guidance(config.guidance), seeds=[0, 1]) for text in prompts]
    images = [picture.image for pictures in zip(*drawn, strict=True) for picture in pictures]
    run.picture("samples", grid(images, len(prompts)), ", ".join(prompts))


def sampling(config: Config) -> SamplingConfig:
    """The noise schedule of Stable Diffusion, and how the finished model is sampled."""
    settings = {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "prediction_type": {"velocity": "v_prediction", "noise": "epsilon"}[config.prediction],
        "timestep_spacing": "trailing",
        "clip_sample": False,  # of ddim and ddpm: latents are not bounded
    }
    return SamplingConfig(sampler=config.sampler, settings=settings)


def assemble(
    config: Config, networks: Networks, autoencoder: Autoencoder, tokenizer: Tokenizer
) -> LatentDiffusion:
    """The finished model, in half precision: what is learned has no more digits than that."""
    networks, autoencoder = copy.deepcopy(networks).half(), copy.deepcopy(autoencoder).half()
    scheme = sampling(config)
    return LatentDiffusion(
        unet=networks.unet.eval(),
        autoencoder=autoencoder.eval(),
        text_encoder=PromptEncoder([Tower(networks.reader.text.eval(), tokenizer)]),
        schedule=scheme.schedule(),
        prediction=scheme.prediction(),
        sampling=scheme,
        name=config.name,
        family="sd1",
        settings={
            "size": (config.size, config.size),
            "steps": config.steps,
            "guidance": config.guidance,
        },
    )


class Bank:
    """Latents of every variant, encoded once, and the drawing of captioned batches.

    Pictures are read part by part; those that cannot be read have no variants.
    """

    @torch.no_grad()
    def __init__(
        self,
        config: Config,
        pictures: Captioned,
        tokenizer: Tokenizer,
        autoencoder: Autoencoder,
    ) -> None:
        self.rows, self.tokenizer = pictures.rows, tokenizer
        self.length = config.text.positions
        self.noun = config.noun
        wanted = variants(
            self.rows, config.tints, config.grounds, config.both, config.fit.seed, config.mirrored
        )
        self.kinds: list[list[Variant]] = []
        self.latents: list[Tensor] = []
        for kind in wanted:
            shown, latents = encoded(autoencoder, pictures, kind, config.size)
            self.kinds.append(shown)
            self.latents.append(latents)
        mixture = config.mixture
        self.shares = torch.tensor(
            [mixture.plain, mixture.rare, mixture.tinted, mixture.grounds, mixture.both]
        )
        for i, kind in enumerate(self.kinds):  # a data set may have no pictures of a kind
            self.shares[i] *= bool(kind)
        self.remarks = (*pictures.remarks, *pictures.pictures.remarks())

    @property
    def shape(self) -> torch.Size:
        """Of one picture's latents (C, h, w)."""
        return next(latents.shape[1:] for latents in self.latents if len(latents))

    @property
    def nbytes(self) -> int:
        """Of the latents."""
        return sum(latents.nbytes for latents in self.latents)

    def batch(self, size: int, empty: float, g: torch.Generator) -> tuple[Tensor, Tensor]:
        """Clean latents (B, C, h, w) and token ids (B, S); a fraction of captions is ``empty``."""
        latents, texts = [], []
        for kind in torch.multinomial(self.shares, size, replacement=True, generator=g).tolist():
            i = int(torch.randint(len(self.kinds[kind]), (), generator=g))
            shown = self.kinds[kind][i]
            latents.append(self.latents[kind][i])
            dropped = torch.rand((), generator=g).item() < empty
            text = caption(self.rows[shown.picture], shown, g, self.noun)
            texts.append("" if dropped else text)
        return torch.stack(latents), token_ids(self.tokenizer, texts, self.length)


def encoded(
    autoencoder: Autoencoder, pictures: Captioned, kind: Sequence[Variant], size: int
) -> tuple[list[Variant], Tensor]:
    """The variants whose picture can be read, and their latents (N, C, h, w)."""
    kept, latents = list[Variant](), list[Tensor]()
    for i in range(0, len(kind), PART):
        part = kind[i : i + PART]
        numbers = list(dict.fromkeys(shown.picture for shown in part))
        pixels, read = pictures.pictures.readable(numbers, size, channels=4)
        place = {number: k for k, number in enumerate(read)}
        part = [shown for shown in part if shown.picture in place]
        if part:
            of_each = pixels.contiguous()[[place[shown.picture] for shown in part]]
            latents.append(autoencoder.encode(render(of_each, part)))
            kept += part
    return kept, torch.cat(latents) if latents else torch.empty(0)


def load_autoencoder(path: Path) -> Autoencoder:
    """The finished autoencoder of the autoencoder recipe."""
    tensors, plain = read_state(path)
    model = Autoencoder(from_dict(AutoencoderConfig, plain["config"], str(path)))
    model.load_state_dict(tensors)
    return model.requires_grad_(False).eval()
