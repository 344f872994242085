"""The same jobs, done by diffusers as its users run it, and by Darkroom.

Both: eager, no gradients, progress bars off, local files, no safety checker.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

PROMPT = "a photograph of a red fox in the snow, early morning light"
NEGATIVE = "blurry, low quality"
SCALE = 7.5


class Inputs:
    """What both are given."""

    def __init__(self, side: int, width: int) -> None:
        generator = torch.Generator().manual_seed(1)
        self.side = side  # of the latents
        self.latents = torch.randn(2, 4, side, side, generator=generator)
        self.text = torch.randn(2, 77, width, generator=generator)
        self.mask = (torch.arange(side) > side // 2).float().expand(2, 1, side, side)
        self.masked = torch.randn(2, 4, side, side, generator=generator)
        self.hint = torch.rand(1, 3, 8 * side, 8 * side, generator=generator)


class Diffusers:
    """``StableDiffusionPipeline.from_pretrained`` and its parts."""

    name = "diffusers"

    def __init__(self, folder: Path) -> None:
        self.folder, self.pipe = folder, self.load(folder)
        self.net: Any = None

    @staticmethod
    def load(folder: Path) -> Any:
        import diffusers

        diffusers.utils.logging.set_verbosity_error()
        diffusers.utils.logging.disable_progress_bar()
        pipe = diffusers.StableDiffusionPipeline.from_pretrained(
            folder, dtype=torch.float32, safety_checker=None, local_files_only=True
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def weights(self) -> list[Tensor]:
        parts = (self.pipe.unet, self.pipe.vae, self.pipe.text_encoder)
        return [p for part in parts for p in part.parameters()]

    @torch.no_grad()
    def text(self) -> Tensor:
        asked, without = self.pipe.encode_prompt(PROMPT, "cpu", 1, True, NEGATIVE)
        return torch.cat((asked, without))

    @torch.no_grad()
    def unet(self, x: Tensor, text: Tensor) -> Tensor:
        return self.pipe.unet(x, torch.tensor(500), encoder_hidden_states=text).sample

    @torch.no_grad()
    def inpaint(self, x: Tensor, mask: Tensor, masked: Tensor, text: Tensor) -> Tensor:
        network = widened(self.pipe.unet, "conv_in", 9)
        x = torch.cat((x, mask, masked), dim=1)
        return network(x, torch.tensor(500), encoder_hidden_states=text).sample

    @torch.no_grad()
    def control(self, x: Tensor, hint: Tensor, text: Tensor) -> Tensor:
        if self.net is None:
            from diffusers.models.controlnets.controlnet import ControlNetModel

            self.net = ControlNetModel.from_unet(self.pipe.unet).eval()
            net = self.net
            hinted = net.controlnet_cond_embedding
            trained(hinted.conv_in, hinted.blocks, hinted.conv_out)
            trained(net.controlnet_down_blocks, net.controlnet_mid_block)
        t = torch.tensor(500)
        down, middle = self.net(x, t, text, hint, return_dict=False)
        return self.pipe.unet(
            x, t, encoder_hidden_states=text, down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
        ).sample  # fmt: skip

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        return self.pipe.vae.decode(latents / self.pipe.vae.config.scaling_factor).sample

    def picture(self, latents: Tensor, steps: int) -> np.ndarray:
        side = latents.shape[-1] * 8
        result = self.pipe(
            PROMPT, negative_prompt=NEGATIVE, height=side, width=side, num_inference_steps=steps,
            guidance_scale=SCALE, latents=latents,
        )  # fmt: skip
        return np.asarray(result.images[0])


class Darkroom:
    """``darkroom.load`` and its parts."""

    name = "darkroom"

    def __init__(self, folder: Path) -> None:
        self.folder, self.model = folder, self.load(folder)
        self.net: Any = None

    @staticmethod
    def load(folder: Path) -> Any:
        import darkroom as dr

        return dr.load(folder, dtype="float32", device="cpu")

    def weights(self) -> list[Tensor]:
        parts = (self.model.unet, self.model.autoencoder, self.model.text_encoder)
        return [p for part in parts for p in part.parameters()]

    @torch.no_grad()
    def text(self) -> Tensor:
        return self.model.text_encoder([PROMPT, NEGATIVE]).text

    @torch.no_grad()
    def unet(self, x: Tensor, text: Tensor) -> Tensor:
        return self.model.unet(x, torch.full((len(x),), 500.0), text)

    @torch.no_grad()
    def inpaint(self, x: Tensor, mask: Tensor, masked: Tensor, text: Tensor) -> Tensor:
        network = widened(self.model.unet, "input", 9)
        x = torch.cat((x, mask, masked), dim=1)
        return network(x, torch.full((len(x),), 500.0), text)

    @torch.no_grad()
    def control(self, x: Tensor, hint: Tensor, text: Tensor) -> Tensor:
        if self.net is None:
            from darkroom.acceleration import hasten
            from darkroom.models.control.controlnet import ControlNet

            self.net = net = ControlNet.from_unet(self.model.unet).eval()
            hasten(net)  # as ``load`` does
            trained(net.hint.input, net.hint.blocks, net.hint.output)
            trained(net.zero, net.zero_middle)
            self.encoded = net.hint(hint)  # the same for every step
        t = torch.full((len(x),), 500.0)
        residuals = self.net.residuals(x, t, text, self.encoded)
        return self.model.unet(x, t, text, None, residuals)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        return self.model.autoencoder.decode(latents)

    def picture(self, latents: Tensor, steps: int) -> np.ndarray:
        import darkroom as dr

        side = latents.shape[-1] * 8
        guidance = dr.Guidance(SCALE, negative=NEGATIVE)
        pictures = dr.develop(
            self.model, PROMPT, guidance, steps=steps, size=(side, side), noise=latents
        )
        return np.asarray(pictures[0].image)


CONTENDERS = {"diffusers": Diffusers, "darkroom": Darkroom}


def job(contender: Any, task: str, inputs: Inputs, steps: int) -> np.ndarray:
    """Do one task; what comes back can be compared between contenders."""
    x, text = inputs.latents, inputs.text
    if task == "picture":
        return contender.picture(x[:1], steps)
    jobs = {
        "text": contender.text,
        "unet1": lambda: contender.unet(x[:1], text[:1]),
        "unet2": lambda: contender.unet(x, text),
        "inpaint": lambda: contender.inpaint(x, inputs.mask, inputs.masked, text),
        "control": lambda: contender.control(x, inputs.hint, text),
        "decode": lambda: contender.decode(x[:1]),
    }
    return jobs[task]().numpy()


def trained(*parts: nn.Module) -> None:
    """Weights that are not zero, the same for the same layers in the same order."""
    generator = torch.Generator().manual_seed(3)
    layers = [layer for part in parts for layer in part.modules() if isinstance(layer, nn.Conv2d)]
    for layer in layers:
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * 0.02)
        assert layer.bias is not None
        layer.bias.zero_()


def widened(unet: nn.Module, name: str, channels: int) -> Any:
    """The same network with more input channels; it shares every other layer."""
    old = getattr(unet, name)
    weight = old.weight.detach()
    new = nn.Conv2d(channels, old.out_channels, 3, padding=1)
    extra = torch.full((old.out_channels, channels - old.in_channels, 3, 3), 0.01)
    new.weight = nn.Parameter(torch.cat((weight, extra), dim=1))
    new.bias = nn.Parameter(old.bias.detach())
    wide = copy.copy(unet)
    wide._modules = {**unet._modules, name: new}
    return wide


@torch.no_grad()
def read_all(contender: Any) -> float:
    """Read every weight once: files that are mapped into memory are not read before."""
    return sum(float(weight.sum(dtype=torch.float32)) for weight in contender.weights())
