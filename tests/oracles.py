"""The reference libraries' models, built from our configs, and weights carried across."""

import torch
from torch import Tensor, nn

from darkroom.models.autoencoder import AutoencoderConfig
from darkroom.models.clip_text import TextConfig
from darkroom.models.unet import UNetConfig


def unet(config: UNetConfig, linear: bool, device: str = "cpu") -> nn.Module:
    """diffusers' UNet2DConditionModel of these sizes."""
    from diffusers import UNet2DConditionModel

    down = tuple("CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in config.depth)
    up = tuple("CrossAttnUpBlock2D" if d else "UpBlock2D" for d in reversed(config.depth))
    vector: dict = {}
    if config.vector_channels:
        vector = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": config.vector_channels,
        }
    layers = tuple(depth or 1 for depth in config.depth)
    with torch.device(device):
        return UNet2DConditionModel(
            sample_size=64,
            in_channels=config.in_channels,
            out_channels=config.out_channels,
            block_out_channels=config.channels,
            down_block_types=down,
            up_block_types=up,
            layers_per_block=config.blocks,
            attention_head_dim=config.heads,
            # where the last level has no attention, diffusers takes the middle's depth from it
            transformer_layers_per_block=(*layers[:-1], config.middle_depth),
            cross_attention_dim=config.text_channels,
            use_linear_projection=linear,
            norm_num_groups=config.groups,
            time_cond_proj_dim=config.guidance_channels or None,
            **vector,
        ).eval()


def autoencoder(config: AutoencoderConfig, device: str = "cpu") -> nn.Module:
    """diffusers' AutoencoderKL of these sizes."""
    from diffusers import AutoencoderKL

    levels = len(config.channels)
    with torch.device(device):
        return AutoencoderKL(
            in_channels=config.in_channels,
            out_channels=config.in_channels,
            latent_channels=config.latent_channels,
            block_out_channels=config.channels,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            layers_per_block=config.blocks,
            norm_num_groups=config.groups,
            scaling_factor=config.scale,
        ).eval()


def text(config: TextConfig, device: str = "cpu") -> nn.Module:
    """transformers' CLIPTextModel of these sizes, with its projection if the config has one."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    theirs = CLIPTextConfig(
        vocab_size=config.vocabulary,
        hidden_size=config.channels,
        intermediate_size=config.hidden,
        projection_dim=config.projection or 512,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        max_position_embeddings=config.positions,
        hidden_act="quick_gelu" if config.quick_gelu else "gelu",
        layer_norm_eps=config.eps,
        bos_token_id=config.end - 1,
        eos_token_id=config.end,
    )
    with torch.device(device):
        model = CLIPTextModelWithProjection if config.projection else CLIPTextModel
        return model(theirs).eval()


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights that no layer starts with: zeros and ones would hide a swapped norm or bias."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            fan = parameter[0].numel() if parameter.ndim > 1 else 1
            if parameter.ndim > 1:
                parameter.copy_(noise * fan**-0.5)
            else:
                parameter.copy_(noise * 0.1 + (1.0 if name.endswith("weight") else 0.0))
    return model


def largest(a: Tensor, b: Tensor) -> float:
    """Largest absolute difference."""
    return float((a.float() - b.float()).abs().max())
