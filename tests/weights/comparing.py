"""Whether a loaded model computes what diffusers' pipeline computes."""

import torch
from torch import Tensor

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
