"""Models of other kinds, by the names of their tensors or the class that their config.json tells.

Darkroom does not open these. Every door says so in the same words, and what it opens instead.
Names are facts of the public files. Rows are tried in order, so the special stand first.
"""

from collections.abc import Iterable

from darkroom.weights.inspect.rule import Rule

PICTURES = "it opens Stable Diffusion 1.x, 2.x and XL, Playground v2.5 and CosXL"
SEGMENTERS = "it opens SAM (ViT-B, L, H), MobileSAM and FastSAM"
ENCODERS = (
    "it opens CLIP with its own towers: OpenAI's files, open_clip's, and folders of Hugging Face's "
    "CLIPModel"
)
VIDEOS = "it opens models of pictures: Stable Diffusion 1.x, 2.x and XL"
ADAPTERS = "it opens LoRA, LyCORIS, ControlNets, T2I-Adapters, embeddings and hypernetworks"
DEPTHS = "it opens DPT: Intel's folders and MiDaS's files"
LARGER = "it opens no upscalers"

# kind, what is opened instead, and alternatives: patterns of names that must all occur
_NAMED: tuple[tuple[str, str, tuple[tuple[str, ...], ...]], ...] = (
    # networks that control others, whose names they have
    ("FLUX.1 ControlNet", ADAPTERS, (("controlnet_x_embedder.",),)),
    (
        "Stable Diffusion 3 ControlNet", ADAPTERS,
        (("^controlnet_blocks.", "^transformer_blocks.", "^pos_embed."),),
    ),
    ("ControlNet Union", ADAPTERS, (("task_embedding", "control_add_embedding."),)),
    # pictures
    ("FLUX.2 transformer", PICTURES, (("double_stream_modulation_img.",),)),
    ("Chroma transformer", PICTURES, (("distilled_guidance_layer.", "double_blocks."),)),
    (
        "HunyuanVideo transformer", VIDEOS,
        (("individual_token_refiner.",), ("context_embedder.token_refiner.",)),
    ),
    (
        "FLUX.1 [dev] transformer", PICTURES,
        (
            ("double_blocks.0.img_attn.", "guidance_in."),
            ("single_transformer_blocks.0.proj_mlp.", "time_text_embed.guidance_embedder."),
        ),
    ),
    (
        "FLUX.1 [schnell] transformer", PICTURES,
        (
            ("double_blocks.0.img_attn.",),
            ("single_transformer_blocks.0.proj_mlp.", "x_embedder.", "context_embedder."),
        ),
    ),
    ("Stable Diffusion 3.5 transformer", PICTURES, (("joint_blocks.0.x_block.attn.ln_q.",),)),
    (
        "Stable Diffusion 3 transformer", PICTURES,
        (
            ("joint_blocks.0.context_block.",),
            ("transformer_blocks.0.attn.add_q_proj.", "pos_embed.proj."),
        ),
    ),
    ("Qwen-Image transformer", PICTURES, (("transformer_blocks.0.img_mod.1.", "txt_norm."),)),
    (
        "AuraFlow transformer", PICTURES,
        (("double_layers.0.attn.w1q.",), ("joint_transformer_blocks.0.",)),
    ),
    ("HiDream transformer", PICTURES, (("double_stream_blocks.0.block.",),)),
    ("Lumina transformer", PICTURES, (("noise_refiner.0.", "cap_embedder."),)),
    ("Sana transformer", PICTURES, (("caption_norm.", "transformer_blocks.0.ff.conv_inverted."),)),
    (
        "Hunyuan-DiT transformer", PICTURES,
        (("mlp_t5.0.", "text_embedding_padding"), ("time_extra_emb.", "text_embedding_padding")),
    ),
    (
        "PixArt transformer", PICTURES,
        (
            ("adaln_single.emb.", "caption_projection.", "pos_embed.proj."),
            ("t_block.1.", "y_embedder.y_proj.", "blocks.0.cross_attn."),
        ),
    ),
    ("Stable Cascade network", PICTURES, (("clip_txt_pooled_mapper.",),)),
    (
        "Würstchen network", PICTURES,
        (("effnet_mapper.",), ("cond_mapper.0.", "blocks.0.mapper."), ("vquantizer.", "in_block.")),
    ),
    (
        "Kandinsky network", PICTURES,
        (("prd_embedding",), ("encoder_hid_proj.image_embeds.",), ("add_embedding.image_norm.",)),
    ),
    ("Kolors U-Net", PICTURES, (("encoder_hid_proj.weight$", "add_embedding.linear_1."),)),
    ("DeepFloyd IF U-Net", PICTURES, (("add_embedding.pool.positional_embedding",),)),
    ("Stable unCLIP model", PICTURES, (("^noise_augmentor.",), ("^embedder.model.visual.",))),
    # videos
    (
        "Stable Video Diffusion model", VIDEOS,
        (("time_stack.", "time_mixer."), ("temporal_transformer_blocks.", "time_mixer.")),
    ),
    ("Wan transformer", VIDEOS, (("text_embedding.0.", "time_projection.1.", "head.modulation"),)),
    ("LTX transformer", VIDEOS, (("patchify_proj.", "scale_shift_table"),)),
    ("Mochi transformer", VIDEOS, (("t5_y_embedder.",),)),
    ("CogVideoX transformer", VIDEOS, (("patch_embed.text_proj.", "norm_final."),)),
    ("U-Net with motion modules", VIDEOS, (("motion_modules.", "conv_in.weight$"),
                                           ("motion_modules.", "model.diffusion_model."))),
    ("motion module", VIDEOS, (("motion_modules.",),)),
    # what is added to a model
    ("IP-Adapter", ADAPTERS, (("^ip_adapter.", "^image_proj."),)),
    ("upscaler (ESRGAN)", LARGER, (
        ("^model.0.weight$", "^model.1.sub.0."),
        ("^conv_first.weight$", "^body.0.rdb1."),
        ("^conv_first.weight$", "RRDB_trunk."),
        ("^body.0.weight$", "^body.1.weight$", "^body.2."),
    )),
    ("upscaler (transformer)", LARGER, (("^conv_first.weight$", "^layers.0.residual_group."),
                                        ("^conv_first.weight$", "^layers.0.blocks."))),
    # segmentation
    ("EdgeTAM", SEGMENTERS, (("spatial_perceiver.",), ("^image_encoder.trunk.body.",))),
    ("SAM 3", SEGMENTERS, (("detector.backbone.", "tracker."), ("detector_model.",))),
    (
        "SAM 2.1", SEGMENTERS,
        (("^image_encoder.trunk.", "no_obj_embed_spatial"),
         ("memory_attention.", "occlusion_spatial_embedding_parameter")),
    ),
    (
        "SAM 2", SEGMENTERS,
        (("^image_encoder.trunk.",), ("^sam_mask_decoder.",), ("vision_encoder.backbone.blocks.",)),
    ),
    ("SAM-HQ", SEGMENTERS, (("mask_decoder.hf_token",), ("mask_decoder.hq_token",))),
    ("EfficientSAM", SEGMENTERS, (("mask_decoder.final_output_upscaling_layers.",),)),
    ("EfficientViT-SAM", SEGMENTERS, (("image_encoder.backbone.input_stem.",),)),
    ("RepViT-SAM", SEGMENTERS, (("image_encoder.features.0.", "mask_decoder."),
                                ("image_encoder.fuse_stage2.",))),
    ("GroundingDINO", SEGMENTERS, (("transformer.encoder.text_layers.", "bert."),
                                   ("text_backbone.", "input_proj_vision."))),
    # pictures and text
    ("CoCa", ENCODERS, (("^text_decoder.", "^visual.", "^logit_scale$"),)),
    ("SigLIP", ENCODERS, (
        ("^logit_bias$", "^visual."),
        ("^logit_bias$", "^vision_model.head."),
        ("vision_model.head.probe$",),
    )),
    ("CLIP with a Hugging Face text tower (open_clip)", ENCODERS, (
        ("^text.transformer.embeddings.", "^visual."),
        ("^text.transformer.encoder.", "^visual."),
        ("^text.transformer.layer", "^visual."),
    )),
    ("EVA-CLIP", ENCODERS, (("^visual.blocks.0.attn.",), ("^visual.rope.",))),
    ("CLIP with a timm vision tower (open_clip)", ENCODERS, (("^visual.trunk.",),)),
    ("CLIP with a custom text tower (open_clip)", ENCODERS, (
        ("^text.transformer.resblocks.", "^visual."),
        ("^text.token_embedding.", "^visual."),
    )),
    ("Chinese CLIP", ENCODERS, (("^bert.encoder.layer.0.", "^visual."),)),
    ("MobileCLIP", ENCODERS, (("^image_encoder.model.", "^text_encoder.transformer."),)),
    ("ImageBind", ENCODERS, (("^modality_trunks.",),)),
    ("BLIP-2", ENCODERS, (("qformer.", "query_tokens"), ("Qformer.bert.", "query_tokens"))),
    ("BLIP", ENCODERS, (("text_decoder.bert.",), ("^visual_encoder.blocks.0.", "^text_encoder."))),
    ("DINOv2", ENCODERS, (("^blocks.0.ls1.gamma$", "^cls_token$"),
                          ("encoder.layer.0.layer_scale1.", "embeddings.cls_token"))),
    ("T5 text encoder", PICTURES, (("block.0.layer.0.SelfAttention.",),)),
    # depth, things
    ("Depth Anything", DEPTHS, (("pretrained.blocks.0.", "depth_head."),)),
    ("ZoeDepth", DEPTHS, (("core.core.pretrained.",),)),
)  # fmt: skip
_LICENCES = {"SAM 2": "Apache-2.0", "SAM 2.1": "Apache-2.0", "SAM-HQ": "Apache-2.0",
             "IP-Adapter": "Apache-2.0", "ImageBind": "CC-BY-NC-SA-4.0"}  # fmt: skip
# What has the names of FastSAM's head, and is none.
_YOLO = (
    Rule("YOLO detection model", "Ultralytics", (".dfl.conv.weight$",), (".proto.",),
         licence="AGPL-3.0"),
    Rule("YOLO segmentation model", "Ultralytics", (".dfl.conv.weight$", ".proto."),
         ("model.22.proto.",), licence="AGPL-3.0"),
    Rule("YOLO detection model", "Ultralytics", (".anchors$", "model.24.m.0."), licence="AGPL-3.0"),
)  # fmt: skip
UNOPENED: tuple[Rule, ...] = (
    *(
        Rule(kind, "", needs, licence=_LICENCES.get(kind, ""))
        for kind, _, alternatives in _NAMED
        for needs in alternatives
    ),
    *_YOLO,
)
_INSTEAD = {kind: instead for kind, instead, _ in _NAMED}
_INSTEAD |= dict.fromkeys((rule.kind for rule in _YOLO), SEGMENTERS)
_INSTEAD |= {"FLUX.1 transformer": PICTURES}
_INSTEAD |= {"GLoRA": ADAPTERS}
# How the classes of such models begin, in config.json and model_index.json.
_CLASSES: tuple[tuple[str, str], ...] = (
    ("Flux2", "FLUX.2 transformer"),
    ("FluxControlNet", "FLUX.1 ControlNet"),
    ("SD3ControlNet", "Stable Diffusion 3 ControlNet"),
    ("ControlNetUnion", "ControlNet Union"),
    ("StableUnCLIP", "Stable unCLIP model"),
    ("Flux", "FLUX.1 transformer"),
    ("StableDiffusion3", "Stable Diffusion 3 transformer"),
    ("SD3", "Stable Diffusion 3 transformer"),
    ("Chroma", "Chroma transformer"),
    ("QwenImage", "Qwen-Image transformer"),
    ("AuraFlow", "AuraFlow transformer"),
    ("HiDream", "HiDream transformer"),
    ("Lumina", "Lumina transformer"),
    ("Sana", "Sana transformer"),
    ("HunyuanVideo", "HunyuanVideo transformer"),
    ("HunyuanDiT", "Hunyuan-DiT transformer"),
    ("PixArt", "PixArt transformer"),
    ("StableCascade", "Stable Cascade network"),
    ("Wuerstchen", "Würstchen network"),
    ("PaellaVQ", "Würstchen network"),
    ("Kandinsky", "Kandinsky network"),
    ("PriorTransformer", "Kandinsky network"),
    ("Kolors", "Kolors U-Net"),
    ("IFPipeline", "DeepFloyd IF U-Net"),
    ("IFImg2Img", "DeepFloyd IF U-Net"),
    ("IFSuperResolution", "DeepFloyd IF U-Net"),
    ("StableVideoDiffusion", "Stable Video Diffusion model"),
    ("UNetSpatioTemporal", "Stable Video Diffusion model"),
    ("Wan", "Wan transformer"),
    ("LTX", "LTX transformer"),
    ("Mochi", "Mochi transformer"),
    ("CogVideoX", "CogVideoX transformer"),
    ("UNetMotionModel", "U-Net with motion modules"),
    ("AnimateDiff", "U-Net with motion modules"),
    ("MotionAdapter", "motion module"),
    ("EdgeTam", "EdgeTAM"),
    ("Sam3", "SAM 3"),
    ("Sam2", "SAM 2"),
    ("SamHQ", "SAM-HQ"),
    ("GroundingDino", "GroundingDINO"),
    ("Siglip", "SigLIP"),
    ("ChineseCLIP", "Chinese CLIP"),
    ("ImageBind", "ImageBind"),
    ("Blip2", "BLIP-2"),
    ("Blip", "BLIP"),
    ("Dinov2", "DINOv2"),
    ("T5", "T5 text encoder"),
    ("UMT5", "T5 text encoder"),
    ("DepthAnything", "Depth Anything"),
    ("ZoeDepth", "ZoeDepth"),
)


def refusal(kind: str) -> str:
    """What is said of a kind that Darkroom does not open, and what it opens; "" where it does."""
    if kind not in _INSTEAD:
        return ""
    return f"{article(kind)} {kind}, which Darkroom does not open; {_INSTEAD[kind]}"


def article(noun: str) -> str:
    """The article of a noun, as it is spoken."""
    return "an" if noun[0] in "AEIOu" or noun.startswith("LTX") else "a"


def kind_of_class(names: Iterable[str]) -> str:
    """The kind of what a config.json calls itself by any of ``names``; "" where it is unknown."""
    for name in names:
        for start, kind in _CLASSES:
            if name.startswith(start):
                return kind
    return ""
