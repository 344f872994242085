"""Draw a picture again from its own parameters."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from darkroom.diffusion.latent_diffusion import LatentDiffusion
from darkroom.errors import ConfigError, ModelMismatchError
from darkroom.generation import seed_noise
from darkroom.generation.adapters import embedding, hypernetwork, lora
from darkroom.generation.control import depth as depths
from darkroom.generation.control import feature as controlling
from darkroom.generation.feature import Feature
from darkroom.generation.fingerprint import fingerprint
from darkroom.generation.generate import generate
from darkroom.generation.guidance import Guidance
from darkroom.generation.image import ImageToImage, fitted
from darkroom.generation.inpaint import feature as inpainting
from darkroom.generation.metadata import Params, read_params
from darkroom.generation.metadata.named import check_local
from darkroom.generation.metadata.params import LARGEST_BATCH
from darkroom.generation.picture import Picture
from darkroom.generation.xl import refiner as refining
from darkroom.generation.xl import sizes
from darkroom.images import ImageLike, open_image, to_tensor
from darkroom.masks import Mask


def redraw(
    model: LatentDiffusion,
    picture: ImageLike | Params,
    image: ImageLike | None = None,
    *,
    edited: ImageLike | None = None,
    mask: Mask | ImageLike | None = None,
    photo: ImageLike | None = None,
    depth: depths.DepthLike | None = None,
    hints: Sequence[ImageLike] = (),
    nets: Sequence[controlling.Net | str | os.PathLike[str]] = (),
    refiner: LatentDiffusion | None = None,
    exact: bool = True,
    remote: bool = False,
) -> Picture:
    """The same picture again: bit for bit with the same weights on the same machine.

    The whole batch that the picture came from runs again, because arithmetic depends on the size of
    the batch in its lowest bits; only the one picture is decoded. One of more than 64 runs alone.

    Args:
        picture: a file made by Darkroom or a program that it reads, or parameters.
        image: what the run started from, if it did: parameters hold its hash only.
        edited: the picture of which a part was painted anew, if that was done.
        mask: that part, if it was not the transparent one.
        photo: the picture whose depths were kept, if they were.
        depth: the depth map that was given, if one was.
        hints: what control networks were given, in order.
        nets: those networks; none = by the names in the parameters.
        refiner: the model that did the last steps, if one did.
        exact: refuse other weights and other input pictures.
        remote: fetch adapters and control networks that the picture names and that are not here.

    Raises:
        ConfigError: without parameters, or without the image or feature that the run needs; or the
            picture of another program leaves something open.
        ModelMismatchError: when the weights, or those of a LoRA, are not those that drew the
            picture.
        ModelNotFoundError: when a LoRA of the picture is not found by its name.
    """
    params = picture if isinstance(picture, Params) else read_params(picture)
    if len(params.seeds) > LARGEST_BATCH:
        params = params.alone()
    if exact and params.fingerprint:
        found = fingerprint(model)
        if found != params.fingerprint:
            raise ModelMismatchError(
                f"the picture was drawn by {params.model or 'weights'} ({params.dtype}, "
                f"fingerprint {params.fingerprint}), this model has {found}: load that model in "
                "that dtype, or pass exact=False for another picture"
            )
    features, arguments = arguments_of(
        params,
        image,
        edited=edited,
        mask=mask,
        photo=photo,
        depth=depth,
        hints=hints,
        nets=nets,
        refiner=refiner,
        exact=exact,
        remote=remote,
    )
    model = with_clip_skip(model, clip_skip_of(params, model.family), params.weighting)
    generation = generate(model, params.prompt, *features, **arguments)
    if exact:
        embedding.check_same(generation.params, params)
    return generation.pictures(only=params.index)[0]


def clip_skip_of(params: Params, family: str) -> int:
    """The layers of the text tower that a picture of another program left out, as we count.

    We count from where a model is usually read, which is one layer before the last in SD 2 and XL.
    ComfyUI and Fooocus count from the last layer; the others leave nothing out of those models.
    """
    if params.origin is None or family not in ("sd2", "sdxl", "sdxl-refiner"):
        return params.clip_skip
    counted = params.origin.program in ("ComfyUI", "Fooocus")
    return max(params.clip_skip - 1, 0) if counted else 0


def with_clip_skip(
    model: LatentDiffusion, clip_skip: int, weighting: str | None = None
) -> LatentDiffusion:
    """The same model, its text towers read ``clip_skip`` layers before where they usually are.

    Args:
        weighting: of words, as in ``TextOptions``; None = as it is.
    """
    encoder: Any = model.text_encoder
    options = getattr(encoder, "options", None)
    if options is None:
        return model
    wanted = {"clip_skip": clip_skip, "weighting": weighting or options.weighting}
    changes = {name: value for name, value in wanted.items() if getattr(options, name) != value}
    if not changes:
        return model
    try:
        return replace(model, text_encoder=encoder.with_options(**changes))
    except ValueError as error:
        raise ConfigError(str(error)) from None


def arguments_of(
    params: Params,
    image: ImageLike | None = None,
    *,
    edited: ImageLike | None = None,
    mask: Mask | ImageLike | None = None,
    photo: ImageLike | None = None,
    depth: depths.DepthLike | None = None,
    hints: Sequence[ImageLike] = (),
    nets: Sequence[controlling.Net | str | os.PathLike[str]] = (),
    refiner: LatentDiffusion | None = None,
    exact: bool = True,
    remote: bool = False,
) -> tuple[list[Feature], dict[str, Any]]:
    """What to give ``generate`` besides the model and ``params.prompt``.

    Fields that the metadata left open stay open, and become the checkpoint's own.

    Raises:
        ConfigError: when the run needs something that the parameters do not hold, or names what
            would have to be downloaded, and ``remote`` is not asked for.
    """
    questions = params.origin.questions if params.origin else {}
    reasons = [reason for name, reason in questions.items() if name != "model"]
    if reasons and params.origin:
        raise ConfigError(
            f"the picture was drawn by {params.origin.program}, and {'; '.join(reasons)}: decide "
            "it with replace(read_params(picture), ..., origin=None)"
        )
    if not remote:
        check_local(params, nets=not nets)
    if params.extras:
        names = ", ".join(sorted(params.extras))
        raise ConfigError(f"the picture was made with {names}, which its metadata does not hold")
    features: list[Feature] = [
        Guidance(
            params.guidance,
            params.negative if params.guidance > 1 else None,
            params.rescale,
            params.interval,
            split=params.split,
        )
    ]
    features += lora.again(params, exact=exact)
    features += hypernetwork.again(params, exact=exact)
    features += embedding.again(params, exact=exact)
    features += sizes.again(params)
    features += seed_noise.again(params)
    features += refining.again(params, refiner, exact=exact)
    features += inpainting.again(params, edited, mask, exact=exact)
    features += depths.again(params, photo, depth, exact=exact)
    features += controlling.again(params, hints, nets, exact=exact)
    if params.image is not None:
        if image is None:
            raise ConfigError("the picture was drawn from another image: give that image too")
        source = open_image(image)
        if exact and params.image.sha256:
            pixels = to_tensor(fitted(source, params.size))
            if hashlib.sha256(pixels.numpy().tobytes()).hexdigest() != params.image.sha256:
                raise ConfigError(
                    "the input image is not the one that the picture was drawn from; "
                    "pass exact=False to use it all the same"
                )
        posterior = "mode" if params.image.posterior == "mode" else "sample"
        features.append(ImageToImage(source, params.image.strength, posterior=posterior))
    elif image is not None:
        raise ConfigError("the picture was not drawn from an image: leave the image out")
    arguments: dict[str, Any] = {"seeds": params.seeds, "options": params.options}
    if params.steps:
        arguments["steps"] = params.steps
    if params.size != (0, 0):
        arguments["size"] = params.size
    if params.fingerprint:
        arguments["tile"] = params.tile
    for name in ("sampler", "spacing", "timesteps"):
        if getattr(params, name):
            arguments[name] = getattr(params, name)
    if params.timesteps:
        arguments.pop("spacing", None)
    return features, arguments
