"""Arguments and attributes that other programs have, and what to say here instead."""

import functools
import inspect
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from darkroom.errors import ArgumentError
from darkroom.names import did_you_mean

T = TypeVar("T")

__all__ = ["ATTRIBUTES", "WORDS", "explained", "instead"]

_GUIDANCE = "dr.Guidance(7.5) after the prompt"
_NEGATIVE = 'dr.Guidance(7.5, negative="blurry") after the prompt'
_SEEDS = "seeds=[7, 8], one for each picture"
_IMAGE = "dr.ImageToImage(image, strength=0.6) after the prompt, or dr.Inpaint(image, mask)"
_INPAINT = "dr.Inpaint(image, mask) after the prompt"
_CONTROL = "dr.Control(net, hint, weight=0.8, start=0.0, end=1.0) after the prompt"
_STEPS = "steps=30"
_SIZE = "size=(height, width), in pixels"
_SAMPLER = 'sampler="dpmpp_2m" and spacing="karras"'
_LOOP = "a loop of your own: for step in dr.generate(model, prompt): ..."
_LORA = 'dr.Lora("name", 0.8) after the prompt, or "<lora:name:0.8>" in it'
_XL = "dr.SizeConditioning(...) after the prompt"
_REFINER = "dr.Refiner(model, start=0.8) after the prompt"
_OUT = "pictures[0].image (PIL), np.asarray(pictures[0]) or pictures[0].save(path)"
_TOKEN = "the variable HF_TOKEN of the environment"
_POINTS = "dr.Prompt(points=((500, 375),), inside=(True,))"

WORDS: Mapping[str, str] = MappingProxyType(
    {
        # diffusers' pipelines
        "num_inference_steps": _STEPS,
        "guidance_scale": _GUIDANCE,
        "guidance_rescale": "dr.Guidance(7.5, rescale=0.7) after the prompt",
        "negative_prompt": _NEGATIVE,
        "generator": _SEEDS,
        "height": _SIZE,
        "width": _SIZE,
        "num_images_per_prompt": _SEEDS,
        "image": _IMAGE,
        "strength": _IMAGE,
        "mask_image": _INPAINT,
        "mask": _INPAINT,
        "padding_mask_crop": "dr.Inpaint(image, mask, only_masked=True, padding=32)",
        "control_image": _CONTROL,
        "controlnet": _CONTROL,
        "controlnet_conditioning_scale": _CONTROL,
        "control_guidance_start": _CONTROL,
        "control_guidance_end": _CONTROL,
        "adapter_conditioning_scale": _CONTROL,
        "guess_mode": "dr.Control(net, hint, guess=True) after the prompt",
        "depth_map": "dr.DepthGuide(photo, depth) after the prompt",
        "callback": _LOOP,
        "callback_steps": _LOOP,
        "callback_on_step_end": _LOOP,
        "callback_on_step_end_tensor_inputs": _LOOP,
        "output_type": _OUT,
        "return_dict": _OUT,
        "eta": 'options={"eta": 1.0} with sampler="ddim"',
        "latents": "noise=tensor, of unit variance",
        "scheduler": _SAMPLER,
        "cross_attention_kwargs": _LORA,
        "original_size": _XL,
        "target_size": _XL,
        "crops_coords_top_left": _XL,
        "aesthetic_score": _XL,
        "denoising_start": _REFINER,
        "denoising_end": _REFINER,
        "prompt_embeds": "the prompt as text",
        "negative_prompt_embeds": _NEGATIVE,
        "prompts": "one prompt, and a call for each",
        # A1111's and others' words
        "cfg_scale": _GUIDANCE,
        "cfg": _GUIDANCE,
        "guidance": _GUIDANCE,
        "negative": _NEGATIVE,
        "sampler_name": _SAMPLER,
        "sampler_index": _SAMPLER,
        "denoising_strength": _IMAGE,
        "init_image": _IMAGE,
        "init_images": _IMAGE,
        "seed": _SEEDS,
        "batch_size": _SEEDS,
        "n_iter": _SEEDS,
        "count": _SEEDS,
        "num_steps": _STEPS,
        "lora": _LORA,
        "loras": _LORA,
        "resolution": _SIZE,
        # from_pretrained and from_single_file
        "torch_dtype": 'dtype="float16"',
        "pretrained_model_name_or_path": "the name, file or folder as the first argument",
        "pretrained_model_link_or_path": "the name, file or folder as the first argument",
        "revision": '"hf:owner/name@revision" as the first argument',
        "subfolder": '"hf:owner/name:folder/file" as the first argument',
        "weight_name": '"hf:owner/name:file" as the first argument',
        "filename": '"hf:owner/name:file" as the first argument',
        "token": _TOKEN,
        "use_auth_token": _TOKEN,
        "cache_dir": "the variable HF_HOME of the environment",
        "local_files_only": "nothing: local files are taken unless the name begins with hf:",
        "use_safetensors": "nothing: every format is read, and none runs code",
        "trust_remote_code": "nothing: no code of a repository is ever run",
        "safety_checker": "nothing: there is none",
        "requires_safety_checker": "nothing: there is none",
        "feature_extractor": "nothing: it is read with the model",
        "low_cpu_mem_usage": "nothing: weights are never held twice",
        "device_map": 'device="cuda"',
        "prediction_type": 'prediction="velocity"',
        "use_ema": "ema=True",
        "extract_ema": "ema=True",
        # segment-anything's and open_clip's
        "checkpoint": "the file as the first argument",
        "model_type": "the file alone: its kind is recognised",
        "model_name": "the file or name as the first argument",
        "pretrained": "the file or name as the first argument",
        "jit": "nothing: archives are read, never run",
        "precision": 'dtype="float16"',
        "point_coords": _POINTS,
        "point_labels": _POINTS,
        "labels": _POINTS,
        "point": _POINTS,
        "boxes": "dr.Prompt(box=(left, top, right, bottom)), one for each box",
        "mask_input": "dr.Prompt(mask=answer.low(0))",
        "multimask_output": "candidates=3, or candidates=1, of segmenter.masks",
        "return_logits": "segmenter.masks(encoded, prompt).full(0, 0)",
    }
)

_ENCODE = "encoded = segmenter.encode(image)"
_ASK = f"segmenter.masks(encoded, {_POINTS}).best()"
_LOAD = 'model = dr.load("runwayml/stable-diffusion-v1-5"), or a file or folder'
_NOTHING = "nothing: it is done where it is faster"
ATTRIBUTES: Mapping[str, str] = MappingProxyType(
    {
        "set_image": _ENCODE,
        "set_torch_image": _ENCODE,
        "get_image_embedding": "segmenter.encode(image).features",
        "predict": _ASK,
        "predict_torch": _ASK,
        "predictor": _ASK,
        "generate": "segmenter.everything(image)",
        "reset_image": "nothing: an encoded picture is a value of its own",
        "from_pretrained": _LOAD,
        "from_single_file": _LOAD,
        "from_ckpt": _LOAD,
        "StableDiffusionPipeline": _LOAD,
        "StableDiffusionXLPipeline": _LOAD,
        "StableDiffusionImg2ImgPipeline": f"{_LOAD}; then {_IMAGE}",
        "StableDiffusionInpaintPipeline": f"{_LOAD}; then {_INPAINT}",
        "StableDiffusionControlNetPipeline": f"{_LOAD}; then {_CONTROL}",
        "AutoPipelineForText2Image": _LOAD,
        "AutoPipelineForImage2Image": f"{_LOAD}; then {_IMAGE}",
        "AutoPipelineForInpainting": f"{_LOAD}; then {_INPAINT}",
        "DiffusionPipeline": _LOAD,
        "ControlNetModel": _CONTROL,
        "sam_model_registry": "dr.open_segmenter(file)",
        "SamPredictor": "dr.open_segmenter(file)",
        "SamAutomaticMaskGenerator": "dr.open_segmenter(file).everything(image)",
        "create_model_and_transforms": "dr.open_encoder(file)",
        "vae": "model.autoencoder",
        "tokenizer": "model.text_encoder",
        "scheduler": f"model.sampling; to draw with another, {_SAMPLER}",
        "load_lora_weights": _LORA,
        "load_textual_inversion": 'dr.Embedding("file") after the prompt',
        "enable_model_cpu_offload": "model.offload()",
        "enable_sequential_cpu_offload": "model.offload()",
        "enable_attention_slicing": _NOTHING,
        "enable_xformers_memory_efficient_attention": _NOTHING,
        "enable_vae_slicing": "nothing: pictures are decoded one after another",
        "enable_vae_tiling": "tile=True of dr.develop",
        "images": _OUT,
        "cuda": 'model.to("cuda")',
        "half": 'model.to("float16")',
    }
)


def instead(owner: str, name: str) -> str:
    """What an AttributeError says: that ``owner`` has no ``name``, and what there is instead."""
    said = f"; say {ATTRIBUTES[name]}" if name in ATTRIBUTES else ""
    return f"{owner} has no attribute {name!r}{said}"


def explained(thing: T) -> T:
    """A function, or a class, that refuses arguments it does not take, with what to say instead.

    Its signature stays as it is.

    Raises:
        ArgumentError: when called with an argument too many, too few or unknown.
    """
    kind: Any = thing
    if not inspect.isclass(kind):
        return _checked(kind, kind.__qualname__.replace(".__init__", ""))
    kind.__init__ = _checked(kind.__init__, kind.__name__)
    return thing


def _checked(function: Any, name: str) -> Any:
    signature = inspect.signature(function)
    known = [
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and parameter.name != "self"
    ]

    @functools.wraps(function)
    def checked(*values: Any, **named: Any) -> Any:
        for word in named:
            if word not in known:
                raise ArgumentError(f"{name}: no argument {word!r}{_advice(word, known)}")
        try:
            signature.bind(*values, **named)
        except TypeError as error:
            raise ArgumentError(f"{name}: {error}; it takes {', '.join(known)}") from None
        return function(*values, **named)

    return checked


def _advice(word: str, known: list[str]) -> str:
    if word in WORDS:
        return f"; say {WORDS[word]}"
    return f"; it takes {', '.join(known)}{did_you_mean(word, known)}"
