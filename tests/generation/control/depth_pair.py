"""A tiny Stable Diffusion 2 depth pipeline of diffusers, random weights, and its depth network."""

import diffusers
import transformers

import oracles
from darkroom.models.dpt.network import DPTConfig
from darkroom.models.dpt.stem import StemConfig
from darkroom.models.dpt.view import View
from darkroom.weights.layouts.annotators.dpt_configs import dpt_json, view_json
from weights import tiny

CONFIG = DPTConfig(
    stem=StemConfig(channels=32, widths=(128, 128, 256), blocks=(1, 2, 1)),
    grid=4, channels=64, layers=4, heads=1, hidden=96, taps=(2, 3), scales=(1, 0.5),
    widths=(128, 128, 48, 40), features=16, view=View(size=(64, 64)),
)  # fmt: skip


def network(config: DPTConfig = CONFIG) -> transformers.DPTForDepthEstimation:
    model = transformers.DPTForDepthEstimation(transformers.DPTConfig(**dpt_json(config)))
    oracles.randomize(model.eval())
    return model


def pipeline() -> diffusers.StableDiffusionDepth2ImgPipeline:
    whole = tiny.sd2(in_channels=5, velocity=False)
    made = diffusers.StableDiffusionDepth2ImgPipeline(
        vae=whole.vae, text_encoder=whole.text_encoder, tokenizer=whole.tokenizer,
        unet=whole.unet, scheduler=whole.scheduler, depth_estimator=network(),
        feature_extractor=transformers.DPTImageProcessorPil(**view_json(CONFIG.view)),
    )  # fmt: skip
    made.set_progress_bar_config(disable=True)
    return made
