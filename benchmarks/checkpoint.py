"""A folder of the shape of Stable Diffusion 1.5, with random weights, written by diffusers."""

import json
from pathlib import Path

import torch
from torch import nn

TRUE = {  # the sizes of runwayml/stable-diffusion-v1-5
    "unet": {"block_out_channels": (320, 640, 1280, 1280), "sample_size": 64},
    "vae": {"block_out_channels": (128, 256, 512, 512), "sample_size": 512},
    "text": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12},
    "heads": 12,
}
TINY = {
    "unet": {"block_out_channels": (32, 64, 64, 64), "sample_size": 8},
    "vae": {"block_out_channels": (32, 32, 64, 64), "sample_size": 64},
    "text": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2},
    "heads": 4,
}
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}


def folders(parent: Path, tiny: bool) -> dict[str, Path]:
    """The folder in float32 and in float16; written once, found again after."""
    size = "tiny" if tiny else "sd15"
    found = {name: parent / f"{size}-{name}" for name in ("fp32", "fp16")}
    if not all((path / "model_index.json").is_file() for path in found.values()):
        _write(found, TINY if tiny else TRUE)
    return found


def _write(paths: dict[str, Path], sizes: dict) -> None:
    import diffusers
    import transformers

    from darkroom.text.tokenizer import Tokenizer

    words = paths["fp32"] / "tokenizer"
    words.mkdir(parents=True, exist_ok=True)
    Tokenizer.built_in().save(words)
    config = json.loads((words / "tokenizer_config.json").read_text())
    text = transformers.CLIPTextConfig(
        vocab_size=49408,
        num_attention_heads=sizes["heads"],
        projection_dim=768,
        hidden_act="quick_gelu",
        **sizes["text"],
    )
    with torch.device("meta"):
        unet = diffusers.UNet2DConditionModel(
            cross_attention_dim=sizes["text"]["hidden_size"], attention_head_dim=8, **sizes["unet"]
        )
        vae = diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            **sizes["vae"],
        )
    tower = transformers.CLIPTextModel(text)
    pipeline = diffusers.StableDiffusionPipeline(
        vae=_filled(vae),
        text_encoder=tower.eval(),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(words),
        unet=_filled(unet),
        scheduler=diffusers.PNDMScheduler(**SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(paths["fp32"])
    pipeline.to(torch.float16).save_pretrained(paths["fp16"])
    for path in paths.values():  # as published repositories have it
        (path / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)
        Tokenizer.built_in().save(path / "tokenizer")
        (path / "tokenizer" / "tokenizer_config.json").write_text(json.dumps(config))


@torch.no_grad()
def _filled(model: nn.Module) -> nn.Module:
    """Random weights of a size that keeps activations finite; norms and biases near 1 and 0."""
    model = model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, parameter[0].numel() ** -0.5, generator=generator)
        else:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    for buffer in model.buffers():
        buffer.zero_()
    return model.eval()
