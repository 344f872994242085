"""Tiny pipelines of diffusers with random weights, the same every time: oracles of many tests.

    from weights import tiny
    pipeline = tiny.sd1()    # also sd2() (velocity), sdxl(), refiner(); in_channels=9: inpainting
    folder = tiny.save(pipeline, tmp_path / "sd1")

They have the structure of the real ones (levels, block types, schedulers, key names) at 32 and 64
channels: 64x64 pixels are 8x8 latents. Texts go through a byte-pair vocabulary of 522 tokens.
"""

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import Tensor, nn

MERGES = ("t h", "th e</w>", "a n", "r e", "o n</w>", "i n", "c a", "ca t</w>")
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
SD1_SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}


def sd1(in_channels: int = 4, seed: int = 1) -> diffusers.StableDiffusionPipeline:
    """Stable Diffusion 1.x: PNDM, one CLIP tower, 1x1 convolutions around the transformers."""
    with seeded(seed):
        unet = diffusers.UNet2DConditionModel(
            sample_size=8,
            in_channels=in_channels,
            block_out_channels=(32, 64, 64, 64),
            attention_head_dim=8,
            cross_attention_dim=32,
        )
        text_encoder = transformers.CLIPTextModel(text_config())
        vae = autoencoder()
    return diffusers.StableDiffusionPipeline(
        vae=shaken(vae),
        text_encoder=shaken(text_encoder),
        tokenizer=tokenizer(END),
        unet=shaken(unet),
        scheduler=diffusers.PNDMScheduler(**SD1_SCHEDULER),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sd2(
    in_channels: int = 4, velocity: bool = True, seed: int = 2
) -> diffusers.StableDiffusionPipeline:
    """Stable Diffusion 2.x: velocity, heads per level, linear projections, exact GELU, pad "!"."""
    with seeded(seed):
        unet = diffusers.UNet2DConditionModel(
            sample_size=8,
            in_channels=in_channels,
            block_out_channels=(32, 64, 64, 64),
            attention_head_dim=(1, 2, 4, 4),
            cross_attention_dim=64,
            use_linear_projection=True,
        )
        text_encoder = transformers.CLIPTextModel(
            text_config(hidden_size=64, hidden_act="gelu", projection_dim=512)
        )
        vae = autoencoder()
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction" if velocity else "epsilon",
    )
    return diffusers.StableDiffusionPipeline(
        vae=shaken(vae),
        text_encoder=shaken(text_encoder),
        tokenizer=tokenizer("!"),
        unet=shaken(unet),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl(in_channels: int = 4, seed: int = 3) -> diffusers.StableDiffusionXLPipeline:
    """Stable Diffusion XL base: Euler, two towers, pooled text and six sizes as a vector."""
    with seeded(seed):
        unet = diffusers.UNet2DConditionModel(
            sample_size=8,
            in_channels=in_channels,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(32, 64, 64),
            transformer_layers_per_block=(1, 2, 3),
            attention_head_dim=(1, 2, 4),
            cross_attention_dim=32 + 64,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=6 * 256 + 48,
        )
        text_encoder = transformers.CLIPTextModel(text_config())
        text_encoder_2 = transformers.CLIPTextModelWithProjection(
            text_config(hidden_size=64, hidden_act="gelu", projection_dim=48)
        )
        vae = autoencoder(scaling_factor=0.13025, force_upcast=True)
    return diffusers.StableDiffusionXLPipeline(
        vae=shaken(vae),
        text_encoder=shaken(text_encoder),
        text_encoder_2=shaken(text_encoder_2),
        tokenizer=tokenizer(END),
        tokenizer_2=tokenizer("!"),
        unet=shaken(unet),
        scheduler=diffusers.EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
            steps_offset=1,
        ),
        add_watermarker=False,
    )


def refiner(seed: int = 5) -> diffusers.StableDiffusionXLImg2ImgPipeline:
    """The XL refiner: the second tower alone, an aesthetic score in place of the target size."""
    with seeded(seed):
        unet = diffusers.UNet2DConditionModel(
            sample_size=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(32, 64, 64),
            transformer_layers_per_block=2,
            attention_head_dim=(1, 2, 4),
            cross_attention_dim=64,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=5 * 256 + 48,
        )
    base = sdxl()  # whose other parts the published refiner shares
    return diffusers.StableDiffusionXLImg2ImgPipeline(
        vae=base.vae,
        text_encoder=None,
        text_encoder_2=base.text_encoder_2,
        tokenizer=None,
        tokenizer_2=base.tokenizer_2,
        unet=shaken(unet),
        scheduler=base.scheduler,
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )


def pixels(seed: int = 4) -> diffusers.DDPMPipeline:
    """An unconditional model of pixels, in the way of google/ddpm-cat-256."""
    with seeded(seed):
        unet = diffusers.UNet2DModel(
            sample_size=32,
            block_out_channels=(32, 64, 64),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=None,
            downsample_padding=0,
            flip_sin_to_cos=False,
            freq_shift=1,
            norm_eps=1e-6,
        )
    return diffusers.DDPMPipeline(unet=shaken(unet), scheduler=diffusers.DDPMScheduler())


def autoencoder(**options: Any) -> diffusers.AutoencoderKL:
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(32, 32, 64, 64),
        layers_per_block=2,
        sample_size=64,
        **options,
    )


def text_config(**options: Any) -> transformers.CLIPTextConfig:
    sizes = {
        "vocab_size": 2 * 256 + len(MERGES) + 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "projection_dim": 32,
        "hidden_act": "quick_gelu",
        "bos_token_id": 0,  # as the published configs say; the end token is the highest id
        "eos_token_id": 2,
        "pad_token_id": 1,
    }
    return transformers.CLIPTextConfig(**{**sizes, **options})


def save(pipeline: diffusers.DiffusionPipeline, folder: Path, **options: Any) -> Path:
    """``save_pretrained``, and the tokenizers as the published repositories have them."""
    pipeline.save_pretrained(folder, **options)
    for name in ("tokenizer", "tokenizer_2"):
        part = getattr(pipeline, name, None)
        if part is not None:
            (folder / name / "tokenizer.json").unlink(missing_ok=True)
            write_tokenizer(folder / name, part.pad_token)
    return folder


def tokenizer(pad: str = END) -> transformers.CLIPTokenizer:
    """A CLIP tokenizer of 522 tokens, padding with ``pad``."""
    with tempfile.TemporaryDirectory() as folder:
        return transformers.CLIPTokenizer.from_pretrained(write_tokenizer(Path(folder), pad))


def write_tokenizer(folder: Path, pad: str = END) -> Path:
    """The four files of a published CLIP tokenizer folder."""
    letters = byte_letters()
    merged = ["".join(pair.split()) for pair in MERGES]
    vocabulary = [*letters, *(letter + "</w>" for letter in letters), *merged, BEGIN, END]
    special = {"bos_token": BEGIN, "eos_token": END, "pad_token": pad, "unk_token": END}
    rest = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
    }
    folder.mkdir(parents=True, exist_ok=True)
    files = {
        "vocab.json": json.dumps({token: i for i, token in enumerate(vocabulary)}),
        "merges.txt": "\n".join(("#version: 0.2", *MERGES, "")),
        "special_tokens_map.json": json.dumps(special),
        "tokenizer_config.json": json.dumps({**special, **rest}),
    }
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def byte_letters() -> list[str]:
    """The printable letter of each byte, in the order of CLIP's vocabulary (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return [*map(chr, printable), *(chr(256 + i) for i in range(len(hidden)))]


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random weights from ``seed``, the global generator left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def shaken(model: nn.Module) -> nn.Module:
    """Give norms and biases values that are not 1 and 0, so that a swapped pair shows."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


TOLERANCE = {"atol": 2e-5, "rtol": 1e-4}  # float32, summed in another order


@torch.no_grad()
def outputs(pipeline, in_channels=None) -> dict[str, Tensor]:
    """The parts of a diffusers pipeline on fixed inputs."""
    text = pipeline.tokenizer(
        "a cat", padding="max_length", max_length=77, return_tensors="pt"
    ).input_ids
    image, latents, t = inputs(pipeline.unet.config.in_channels)
    vae = pipeline.vae
    moments = vae.encode(image).latent_dist
    result = {
        "mean": moments.mean,
        "logvar": moments.logvar,
        "decoded": vae.decode(moments.mean).sample,
    }
    if hasattr(pipeline, "text_encoder_2"):
        prompt, _, pooled, _ = pipeline.encode_prompt(
            "a cat", device="cpu", do_classifier_free_guidance=False
        )
        ids = torch.tensor([[64.0, 64, 0, 0, 64, 64]])
        extra = {"text_embeds": pooled, "time_ids": ids}
        result["pooled"] = pooled
        result["unet"] = pipeline.unet(latents, t, prompt, added_cond_kwargs=extra).sample
    else:
        prompt = pipeline.text_encoder(text)[0]
        result["unet"] = pipeline.unet(latents, t, prompt).sample
    result["text"] = prompt
    return result


@torch.no_grad()
def our_outputs(model) -> dict[str, Tensor]:
    """The same of a LatentDiffusion."""
    image, latents, t = inputs(model.unet.config.in_channels)
    mean, logvar = model.autoencoder.moments(image)
    cond = model.text_encoder(["a cat"], (64, 64))
    result = {
        "mean": mean,
        "logvar": logvar,
        "decoded": model.autoencoder.decode(mean * model.autoencoder.config.scale),
        "text": cond.text,
        "unet": model.unet(latents, t, cond.text, cond.vector),
    }
    if cond.vector is not None:
        result["pooled"] = cond.vector[:, : -6 * model.text_encoder.size_channels]
    return result


def inputs(in_channels: int) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(5)
    image = torch.rand((1, 3, 64, 64), generator=g) * 2 - 1
    latents = torch.randn((1, in_channels, 8, 8), generator=g)
    return image, latents, torch.tensor([731.0])


def assert_same(model, pipeline) -> None:
    """Every output of the model equals the pipeline's."""
    theirs, ours = outputs(pipeline), our_outputs(model)
    assert theirs.keys() == ours.keys()
    for name, tensor in theirs.items():
        assert tensor.std() > 1e-3, f"{name} says nothing"
        torch.testing.assert_close(
            ours[name], tensor, **TOLERANCE, msg=lambda m, n=name: f"{n}: {m}"
        )
