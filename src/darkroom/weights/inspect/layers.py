"""What is inside a model's networks: every layer with its shapes and costs, no weight being read.

A model is opened on the meta device, or built from the sizes that its family has; there is no
difference, and no checkpoint is needed for the second.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.diffusion.pixel_diffusion import PixelDiffusion
from darkroom.errors import ConfigError
from darkroom.models.autoencoder import SD_AUTOENCODER, SDXL_AUTOENCODER, Autoencoder
from darkroom.models.clip.modified_resnet import AttentionResNet
from darkroom.models.clip.network import Clip
from darkroom.models.clip.presets import OPEN_CLIP, OPENAI
from darkroom.models.clip.vision_transformer import VisionTransformer
from darkroom.models.clip_text import CLIP_L, OPENCLIP_BIGG, OPENCLIP_H, ClipTextModel
from darkroom.models.digit_classifier import DigitClassifier, DigitClassifierConfig
from darkroom.models.distilbert import DISTILBERT, DistilBert
from darkroom.models.dpt.network import COARSEST, DPT, DPT_HYBRID, DPT_LARGE
from darkroom.models.dual_encoder import BOOK_CLIP, DualEncoder
from darkroom.models.fastsam.network import COARSEST as FASTSAM_COARSEST
from darkroom.models.fastsam.network import FASTSAM_S, FASTSAM_X, FastSAM
from darkroom.models.flow import Flow, FlowConfig
from darkroom.models.gan import GAN, GANConfig
from darkroom.models.resnet import RESNET50, RESNET101, RESNET152, ResNet
from darkroom.models.sam.config import MOBILE_SAM, SAM_B, SAM_H, SAM_L
from darkroom.models.sam.network import Sam
from darkroom.models.segmentation.unet import SegmentationUNet, SegmentationUNetConfig
from darkroom.models.segmentation.unet_resnet import (
    SegmentationUNetResNet,
    SegmentationUNetResNetConfig,
)
from darkroom.models.tiny_autoencoder import TAESD, TinyAutoencoder
from darkroom.models.unconditional_unet import (
    DDPM_256,
    MNIST,
    MNIST_CONDITIONAL,
    UnconditionalUNet,
)
from darkroom.models.unet import (
    SD15,
    SD15_INPAINT,
    SD15_INSTRUCT,
    SD21,
    SD21_DEPTH,
    SD21_INPAINT,
    SDXL,
    SDXL_REFINER,
    UNet,
)
from darkroom.models.vae import VAE, VAEConfig
from darkroom.text.encoder import PromptEncoder
from darkroom.tracing import Trace, trace
from darkroom.weights.assemble import on_meta
from darkroom.weights.catalog import CATALOG, Known, lookup
from darkroom.weights.families import SETTINGS

Size = tuple[int, int]  # height, width, in pixels
LATENT = 8  # pixels per latent, for a U-Net that comes without its autoencoder
TOKENS = 77
SENTENCE = 40  # tokens of a caption, for networks that take any number


@dataclass(frozen=True)
class Network:
    """One way through one network of a model."""

    part: str  # what it is in the model: "U-Net", "autoencoder, decoding"
    model: nn.Module
    inputs: tuple[Tensor, ...]
    call: str = "forward"

    def trace(self, depth: int | None = None) -> Trace:
        """Shapes and costs; nothing is computed."""
        return trace(self.model, self.inputs, depth, call=self.call)


def networks_of(path: Path, size: Size | None = None, batch: int = 1) -> list[Network]:
    """The networks of a model folder or file, opened without reading a weight.

    Args:
        size: of the pictures, in pixels; None = what the model is meant for.

    Raises:
        CheckpointError: it is no model that Darkroom opens.
        ConfigError: the size does not fit the model.
    """
    from darkroom.weights.inspect import inspect
    from darkroom.weights.layouts.clip.files import open_clip_file
    from darkroom.weights.load import load

    # an SD 2 file may not say what it predicts; its layers are the same either way
    report = None if path.is_dir() and open_clip_file(path) is None else inspect(path)
    prediction = report and not path.is_dir() and (report.prediction or "noise")
    gelu = "gelu" if report and report.kind == "CLIP" else None  # nor which GELU a CLIP has
    model = load(
        path, device="meta", dtype="float32", prediction=prediction or None, activation=gelu
    )
    return list(_ways(model, size, batch))


def networks_called(name: str, size: Size | None = None, batch: int = 1) -> list[Network] | None:
    """The networks of a known architecture; None if the name is none. See ``architectures``."""
    known = lookup(name)
    for short in (name, *(known.short if known else ())):
        if short in ALONE:
            kind, config, usual = ALONE[short]
            return list(_alone(_built(kind, config), size or usual, batch))
    parts = _family(known) if known else {}
    if not known or not parts:
        return None
    size = size or known.settings.get("size") or SETTINGS.get(known.family, {}).get("size")
    made = {part: _built(kind, config) for part, (kind, config) in parts.items()}
    return list(_together(made, size or (512, 512), batch))


def architectures() -> list[str]:
    """Short names that ``networks_called`` knows."""
    families = [known.short[0] for known in CATALOG if known.short and _family(known)]
    return sorted({*ALONE, *families})


def _built(kind: Callable[[Any], nn.Module], config: Any) -> nn.Module:
    with on_meta():
        return kind(config).eval()


def _short(preset: str) -> str:
    """Names as the catalogue has them: "clip-vit-b-32" is OpenAI's, "openclip-vit-b-32" not."""
    maker = "openclip" if preset in OPEN_CLIP else "clip"
    return f"{maker}-{preset.lower().replace('/', '-').replace('@', '-')}"


ALONE: Mapping[str, tuple[Callable[[Any], nn.Module], Any, Size]] = MappingProxyType(
    {
        "mnist": (UnconditionalUNet, MNIST, (32, 32)),
        "mnist-conditional": (UnconditionalUNet, MNIST_CONDITIONAL, (32, 32)),
        "ddpm-256": (UnconditionalUNet, DDPM_256, (256, 256)),
        "ddpm-cat-256": (UnconditionalUNet, DDPM_256, (256, 256)),
        **{
            _short(name): (Clip, config, (config.view.size, config.view.size))
            for name, config in (*OPENAI.items(), *OPEN_CLIP.items())
        },
        "sd-vae-ft-mse": (Autoencoder, SD_AUTOENCODER, (512, 512)),
        "sdxl-vae-fp16-fix": (Autoencoder, SDXL_AUTOENCODER, (1024, 1024)),
        "taesd": (TinyAutoencoder, TAESD, (512, 512)),
        "taesdxl": (TinyAutoencoder, TAESD, (1024, 1024)),
        "clip-resnet50-distilbert": (DualEncoder, BOOK_CLIP, (224, 224)),
        "digit-classifier": (DigitClassifier, DigitClassifierConfig(), (28, 28)),
        "distilbert": (DistilBert, DISTILBERT, (224, 224)),
        "dpt-hybrid": (DPT, DPT_HYBRID, DPT_HYBRID.view.size),
        "dpt-large": (DPT, DPT_LARGE, DPT_LARGE.view.size),
        "fastsam-s": (FastSAM, FASTSAM_S, (1024, 1024)),
        "fastsam-x": (FastSAM, FASTSAM_X, (1024, 1024)),
        "flow": (Flow, FlowConfig(), (28, 28)),
        "gan": (GAN, GANConfig(), (28, 28)),
        "vae": (VAE, VAEConfig(), (28, 28)),
        "sam-vit-b": (Sam, SAM_B, (1024, 1024)),
        "sam-vit-l": (Sam, SAM_L, (1024, 1024)),
        "sam-vit-h": (Sam, SAM_H, (1024, 1024)),
        "mobile-sam": (Sam, MOBILE_SAM, (1024, 1024)),
        "segmentation-unet": (SegmentationUNet, SegmentationUNetConfig(), (256, 256)),
        "segmentation-unet-resnet": (
            SegmentationUNetResNet,
            SegmentationUNetResNetConfig(),
            (256, 256),
        ),
        "resnet50": (ResNet, replace(RESNET50, classes=1000), (224, 224)),
        "resnet101": (ResNet, replace(RESNET101, classes=1000), (224, 224)),
        "resnet152": (ResNet, replace(RESNET152, classes=1000), (224, 224)),
    }
)
VARIANTS = MappingProxyType(
    {
        ("sd1", "inpaint"): SD15_INPAINT,
        ("sd1", "instruct"): SD15_INSTRUCT,
        ("sd1", ""): SD15,
        ("sd2", "inpaint"): SD21_INPAINT,
        ("sd2", "depth"): SD21_DEPTH,
        ("sd2", ""): SD21,
        ("sdxl", "inpaint"): replace(SDXL, in_channels=9),
        ("sdxl", ""): SDXL,
        ("sdxl-refiner", ""): SDXL_REFINER,
    }
)
TOWERS = MappingProxyType(
    {
        "sd1": (CLIP_L,),
        "sd2": (OPENCLIP_H,),
        "sdxl": (CLIP_L, OPENCLIP_BIGG),
        "sdxl-refiner": (OPENCLIP_BIGG,),
    }
)


def _family(known: Known) -> dict[str, tuple[Callable[[Any], nn.Module], Any]]:
    """The parts of a checkpoint of the catalogue; empty for a kind that has no network here."""
    if known.family not in TOWERS:
        return {}
    towers = TOWERS[known.family]
    unet = next(
        config
        for (family, word), config in VARIANTS.items()
        if family == known.family and word in known.name
    )
    xl = known.family.startswith("sdxl")
    return {
        **{part: (ClipTextModel, c) for part, c in zip(_towers(len(towers)), towers, strict=True)},
        "U-Net": (UNet, unet),
        "autoencoder": (Autoencoder, SDXL_AUTOENCODER if xl else SD_AUTOENCODER),
        **({"depth network": (DPT, DPT_HYBRID)} if unet is SD21_DEPTH else {}),
    }


def _towers(count: int) -> list[str]:
    return ["text encoder"] if count == 1 else [f"text encoder {i + 1}" for i in range(count)]


def _ways(model: Any, size: Size | None, batch: int) -> Iterator[Network]:
    if isinstance(model, LatentDiffusion):
        encoder = model.text_encoder
        towers = [t.model for t in encoder.towers] if isinstance(encoder, PromptEncoder) else []
        parts = dict(zip(_towers(len(towers)), towers, strict=True))
        parts |= {"U-Net": model.unet, "autoencoder": model.autoencoder}
        parts |= {} if model.depth is None else {"depth network": model.depth}
        yield from _together(parts, size or model.settings.get("size", (512, 512)), batch)
    elif isinstance(model, PixelDiffusion):
        yield from _alone(model.unet, size or model.settings.get("size"), batch)
    else:
        yield from _alone(model, size, batch)


def _together(parts: Mapping[str, Any], size: Size, batch: int) -> Iterator[Network]:
    """Text encoders, U-Net and autoencoder, at one size."""
    factor = parts["autoencoder"].factor
    towers = [m.config.positions for m in parts.values() if isinstance(m, ClipTextModel)]
    tokens = min(towers, default=TOKENS)
    for name, part in parts.items():
        if isinstance(part, UNet):
            yield Network(name, part, _unet(part, size, batch, factor, tokens))
        elif isinstance(part, DPT):
            yield from _alone(part, part.config.view.size, batch, name)
        else:
            yield from _alone(part, size, batch, name)


def _alone(model: nn.Module, size: Size | None, batch: int, part: str = "") -> Iterator[Network]:
    """What one network is given, by its class.

    Raises:
        ConfigError: a class that has no rule here.
    """
    part = part or "network"
    if isinstance(model, Autoencoder | TinyAutoencoder):
        height, width = size or (512, 512)
        image = _empty(batch, model.config.in_channels, height, width)
        latents = _empty(batch, model.channels, *_divided((height, width), model.factor))
        yield Network(f"{part}, encoding", model, (image,), "encode")
        yield Network(f"{part}, decoding", model, (latents,), "decode")
    elif isinstance(model, UNet):
        yield Network(part, model, _unet(model, size or (512, 512), batch, LATENT, TOKENS))
    elif isinstance(model, UnconditionalUNet):
        coarsest = 2 ** (len(model.config.channels) - 1)
        height, width = size or (8 * coarsest, 8 * coarsest)
        _divided((height, width), coarsest)
        given = [_empty(batch, model.config.in_channels, height, width), _empty(batch)]
        if model.config.classes:
            given.append(_ids(batch))
        yield Network(part, model, tuple(given))
    elif isinstance(model, ClipTextModel):
        yield Network(part, model, (_ids(batch, model.config.positions),))
    elif isinstance(model, Clip):
        _sized(size, model.config.image.size)
        yield from _alone(model.image, size, batch, "image tower")
        yield from _alone(model.text, size, batch, "text tower")
    elif isinstance(model, VisionTransformer | AttentionResNet):
        pixels = _sized(size, model.config.size)
        yield Network(part, model, (_empty(batch, 3, pixels, pixels),))
    elif isinstance(model, DPT):
        height, width = size or model.config.view.size
        _divided((height, width), COARSEST)
        yield Network(part, model, (_empty(batch, 3, height, width),))
    elif isinstance(model, Sam):
        config = model.config
        if size not in (None, (config.size, config.size)):
            raise ConfigError(f"this model looks at {config.size}x{config.size} pixels, always")
        features = _empty(1, config.channels, config.grid, config.grid)
        tokens = _empty(batch, 2, config.channels)  # of one point
        yield Network(
            "image encoder", model.image_encoder, (_empty(1, 3, config.size, config.size),)
        )
        yield Network("mask decoder", model.mask_decoder, (features, features, tokens))
    elif isinstance(model, FastSAM):
        height, width = size or (1024, 1024)
        _divided((height, width), FASTSAM_COARSEST)
        yield Network(part, model, (_empty(batch, 3, height, width),))
    elif isinstance(model, DistilBert):
        yield Network(part, model, (_ids(batch, min(SENTENCE, model.config.positions)),))
    elif isinstance(model, DualEncoder):
        image = _empty(batch, 3, *(size or (224, 224)))
        yield Network(part, model, (image, _ids(batch, SENTENCE)))
    elif isinstance(model, GAN):
        latent = _empty(batch, model.config.latent)
        image = _empty(batch, model.config.image_channels, model.config.size, model.config.size)
        yield Network("generator", model.generator, (latent,))
        yield Network("discriminator", model.discriminator, (image,))
    elif isinstance(model, VAE):
        image = _empty(batch, model.config.image_channels, model.config.size, model.config.size)
        yield Network("encoder", model.encoder, (image,))
        yield Network("decoder", model.decoder, (_empty(batch, model.config.latent),))
    elif isinstance(model, Flow | DigitClassifier):
        yield Network(part, model, (_empty(batch, 1, *(size or (28, 28))),))
    elif isinstance(model, ResNet | SegmentationUNet):
        image = _empty(batch, model.config.in_channels, *(size or (224, 224)))
        yield Network(part, model, (image,))
    elif isinstance(model, SegmentationUNetResNet):
        image = _empty(batch, model.config.encoder.in_channels, *(size or (224, 224)))
        yield Network(part, model, (image,))
    else:
        raise ConfigError(
            f"a {type(model).__name__}: what it is given is not known here; use dr.summary(model, "
            "inputs)"
        )


def _sized(size: Size | None, only: int) -> int:
    if size not in (None, (only, only)):
        raise ConfigError(f"this model looks at {only}x{only} pixels, always")
    return only


def _unet(model: UNet, size: Size, batch: int, factor: int, tokens: int) -> tuple[Tensor, ...]:
    config = model.config
    latents = _empty(batch, config.in_channels, *_divided(size, factor))
    given = [latents, _empty(batch), _empty(batch, tokens, config.text_channels)]
    if config.vector_channels:
        given.append(_empty(batch, config.vector_channels))
    return tuple(given)


def _divided(size: Size, factor: int) -> Size:
    if size[0] % factor or size[1] % factor:
        raise ConfigError(
            f"size {size[1]}x{size[0]}: this model needs multiples of {factor}; the nearest is "
            f"{_nearest(size[1], factor)}x{_nearest(size[0], factor)}"
        )
    return size[0] // factor, size[1] // factor


def _nearest(length: int, factor: int) -> int:
    return max(round(length / factor), 1) * factor


def _empty(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


def _ids(*shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.int64, device="meta")
