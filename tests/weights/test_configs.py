"""Config files as they were published, and back to what diffusers and transformers build."""

import diffusers
import pytest
import transformers

from darkroom.errors import CheckpointError, ConfigError
from darkroom.models.autoencoder import SD_AUTOENCODER, SDXL_AUTOENCODER, AutoencoderConfig
from darkroom.models.clip_text import CLIP_L, OPENCLIP_BIGG, OPENCLIP_H, TextConfig
from darkroom.models.unet import (
    SD15,
    SD15_INPAINT,
    SD15_INSTRUCT,
    SD21,
    SD21_DEPTH,
    SDXL,
    SDXL_REFINER,
    UNetConfig,
)
from darkroom.weights import configs

OLD = {  # the keys of 2022, as in CompVis/stable-diffusion-v1-4
    "_class_name": "UNet2DConditionModel",
    "_diffusers_version": "0.2.2",
    "act_fn": "silu",
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "center_input_sample": False,
    "cross_attention_dim": 768,
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "downsample_padding": 1,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "in_channels": 4,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "norm_eps": 1e-05,
    "norm_num_groups": 32,
    "out_channels": 4,
    "sample_size": 64,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
}
SD2 = OLD | {
    "_diffusers_version": "0.10.0.dev0",
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "dual_cross_attention": False,
    "num_class_embeds": None,
    "only_cross_attention": False,
    "sample_size": 96,
    "upcast_attention": True,
    "use_linear_projection": True,
}
XL = SD2 | {
    "addition_embed_type": "text_time",
    "addition_embed_type_num_heads": 64,
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "class_embed_type": None,
    "class_embeddings_concat": False,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_dim": 2048,
    "cross_attention_norm": None,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "mid_block_only_cross_attention": None,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "num_attention_heads": None,
    "projection_class_embeddings_input_dim": 2816,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "sample_size": 128,
    "time_cond_proj_dim": None,
    "time_embedding_act_fn": None,
    "time_embedding_dim": None,
    "time_embedding_type": "positional",
    "timestep_post_act": None,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
}
REFINER = XL | {
    "attention_head_dim": [6, 12, 24, 24],
    "block_out_channels": [384, 768, 1536, 1536],
    "cross_attention_dim": 1280,
    "down_block_types": ["DownBlock2D"] + ["CrossAttnDownBlock2D"] * 2 + ["DownBlock2D"],
    "projection_class_embeddings_input_dim": 2560,
    "transformer_layers_per_block": 4,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 2 + ["UpBlock2D"],
}
PUBLISHED = [
    (OLD, SD15),
    (OLD | {"in_channels": 9}, SD15_INPAINT),
    (OLD | {"in_channels": 8}, SD15_INSTRUCT),
    (SD2, SD21),
    (SD2 | {"in_channels": 5}, SD21_DEPTH),
    (XL, SDXL),
    (REFINER, SDXL_REFINER),
]
CLIP = {
    "_name_or_path": "openai/clip-vit-large-patch14",
    "architectures": ["CLIPTextModel"],
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "dropout": 0.0,
    "eos_token_id": 2,
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "initializer_factor": 1.0,
    "initializer_range": 0.02,
    "intermediate_size": 3072,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 77,
    "model_type": "clip_text_model",
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 1,
    "projection_dim": 768,
    "torch_dtype": "float32",
    "transformers_version": "4.22.0.dev0",
    "vocab_size": 49408,
}
H = CLIP | {
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 23,
    "projection_dim": 512,
}
BIGG = CLIP | {
    "architectures": ["CLIPTextModelWithProjection"],
    "hidden_act": "gelu",
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}
VAE = {  # stabilityai/sd-vae-ft-mse
    "_class_name": "AutoencoderKL",
    "_diffusers_version": "0.4.2",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 256,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}


@pytest.mark.parametrize(("data", "config"), PUBLISHED)
def test_published_unets(data, config):
    assert configs.unet_config(data) == config


@pytest.mark.parametrize("config", [config for _, config in PUBLISHED] + [UNetConfig(blocks=1)])
def test_unets_there_and_back(config):
    data = configs.unet_json(config)
    assert configs.unet_config(data) == config
    known = diffusers.UNet2DConditionModel._get_init_keys(diffusers.UNet2DConditionModel)
    assert {key for key in data if not key.startswith("_")} <= known


def test_a_unet_that_diffusers_has_not():
    with pytest.raises(ConfigError, match="middle_depth 3"):
        configs.unet_json(UNetConfig(depth=(1, 1, 1, 2), middle_depth=3))


@pytest.mark.parametrize(
    ("data", "config"), [(CLIP, CLIP_L), (H, OPENCLIP_H), (BIGG, OPENCLIP_BIGG)]
)
def test_published_text_towers(data, config):
    assert configs.text_config(data) == config
    again = configs.text_json(config)
    assert configs.text_config(again) == config
    theirs = transformers.CLIPTextConfig(**again)
    assert theirs.hidden_size == config.channels
    assert theirs.hidden_act == data["hidden_act"]


def test_the_end_token():
    assert configs.text_config(CLIP).end == 49407, "2 means the last of the vocabulary"
    assert configs.text_config(CLIP | {"eos_token_id": 5}).end == 5
    small = TextConfig(vocabulary=100, end=7)
    assert configs.text_config(configs.text_json(small)) == small


def test_published_autoencoders():
    assert configs.autoencoder_config(VAE) == SD_AUTOENCODER
    xl = VAE | {"force_upcast": True, "scaling_factor": 0.13025, "sample_size": 1024}
    assert configs.autoencoder_config(xl) == SDXL_AUTOENCODER
    null = xl | {"latents_mean": None, "latents_std": None, "shift_factor": None}
    assert configs.autoencoder_config(null) == SDXL_AUTOENCODER
    for config in (SD_AUTOENCODER, AutoencoderConfig(shift=0.1, quantize=False, blocks=1)):
        assert configs.autoencoder_config(configs.autoencoder_json(config)) == config
    with pytest.raises(ConfigError, match="patch 4"):
        configs.autoencoder_json(AutoencoderConfig(patch=4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time_cond_proj_dim": "wide"}, "time_cond_proj_dim = 'wide' must be a whole number"),
        ({"freq_shift": False}, "freq_shift = False"),
        ({"only_cross_attention": [True, False]}, "only_cross_attention = [True, False]"),
        ({"down_block_types": ["DownBlock2D"]}, "down_block_types"),
        ({"projection_class_embeddings_input_dim": 2816}, "goes with addition_embed_type"),
        ({"attention_head_dim": [8, 8]}, "must be a whole number, or 4 of them"),
        ({"cross_attention_dim": [768] * 4}, "expected a whole number"),
        ({"activation_fn": "silu"}, "activation_fn = 'silu' is not known"),
    ],
)
def test_nothing_is_ignored(change, message):
    with pytest.raises(CheckpointError) as caught:
        configs.unet_config(OLD | change, "x/unet/config.json")
    assert message in str(caught.value)
    assert str(caught.value).startswith("x/unet/config.json: ")
    assert configs.unet_config(OLD | {"only_cross_attention": [False] * 4}) == SD15
