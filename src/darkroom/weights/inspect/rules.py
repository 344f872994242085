"""How the names of tensors tell what a file is: one row for each kind and naming scheme.

Rows are tried in order and the first that fits wins, so the special stand before the general.
Names are facts of the public files; see docs of each project, and diffusers for its own.
"""

from darkroom.weights.inspect.rule import Names, Rule
from darkroom.weights.inspect.unopened import UNOPENED


def fitting(names: Names) -> Rule | None:
    """The first row that fits."""
    for rule in RULES:
        if all(map(names.have, rule.needs)) and not any(map(names.have, rule.lacks)):
            return rule
    return None


CHECKPOINT = (
    "model.diffusion_model.",
    "first_stage_model.",
    "cond_stage_model.",
    "conditioner.",
    "depth_model.",
    "model_ema.",
    "denoiser.",
    "alphas_cumprod",
    "betas",
    "sqrt_",
    "log_one_minus_",
    "posterior_",
    "logvar",
    "lvlb_weights",
    "scale_factor",
    "v_pred",
    "ztsnr",
    "edm_",
    "scaled_fp8",
    "embedding_manager.",
    "noise_augmentor.",
    "embedder.",
    "low_scale_model.",
)
_ADDED: tuple[Rule, ...] = (
    # adapters: their names contain those of the networks they change
    Rule("Control-LoRA", "SGM", ("^lora_controlnet",)),
    Rule("LoRA", "kohya", ("^lora_unet_", ".lora_down.weight$"), known=("lora_", "bundle_emb.")),
    Rule("LoRA", "kohya", ("^lora_te", ".lora_down.weight$"), known=("lora_", "bundle_emb.")),
    Rule(
        "GLoRA", "LyCORIS", ("^lora_", ".a1.weight$", ".b1.weight$"), known=("lora_", "bundle_emb.")
    ),
    Rule("LoRA", "LyCORIS", ("^lora_unet_",), known=("lora_", "bundle_emb.")),
    Rule("LoRA", "LyCORIS", ("^lora_te",), known=("lora_", "bundle_emb.")),
    Rule("LoRA", "peft", (".lora_A.weight$",)),
    Rule("LoRA", "peft", (".lora_A.default.weight$",)),
    Rule("LoRA", "diffusers", ("lora.down.weight$",)),
    Rule("LoRA", "diffusers", ("_lora.down.weight$",)),
    Rule("LoRA", "diffusers", ("lora_linear_layer.down.weight$",)),
    Rule("LoRA", "numbered", ("^unet:0:down$",), known=("unet:", "text_encoder:", "<")),
    Rule("LoRA", "numbered", ("^text_encoder:0:down$",), known=("unet:", "text_encoder:", "<")),
    Rule("textual inversion", "A1111", ("^string_to_param.",), known=("string_to_param.",)),
    Rule("textual inversion", "A1111", ("^emb_params$",), known=("emb_params",)),
    Rule("textual inversion", "SDXL", ("^clip_l$", "^clip_g$"), known=("clip_l", "clip_g")),
    Rule("textual inversion", "SDXL", ("^clip_g$",), known=("clip_l", "clip_g")),
    Rule("T2I-adapter", "original", ("^body.0.block1.weight$", "^conv_in.weight$")),
    Rule("T2I-adapter", "original", ("^body.0.body.0.block1.weight$", "^body.0.in_conv.weight$")),
    Rule("T2I-adapter", "diffusers", ("^adapter.body.", ".resnets.0.block1.weight$")),
)
_OPENED: tuple[Rule, ...] = (
    # networks that control others
    Rule("checkpoint with ControlNet", "LDM", ("^control_model.", "^model.diffusion_model.")),
    Rule(
        "ControlNet difference",
        "LDM",
        ("^difference$", "^control_model."),
        known=("control_model.", "difference"),
    ),
    Rule("ControlNet difference", "LDM", ("^difference$", "^input_hint_block.")),
    Rule("ControlNet", "LDM", ("^control_model.",), known=("control_model.",)),
    Rule("ControlNet", "LDM", ("^input_hint_block.", "^zero_convs.")),
    Rule("ControlNet", "diffusers", ("^controlnet_cond_embedding.", "^controlnet_down_blocks.")),
    # whole checkpoints
    Rule(
        "checkpoint", "SGM", ("^model.diffusion_model.", "^conditioner.embedders."), (), CHECKPOINT
    ),
    Rule(
        "checkpoint", "LDM", ("^model.diffusion_model.", "^cond_stage_model."), (), CHECKPOINT
    ),
    Rule(
        "checkpoint without text encoder",
        "LDM",
        ("^model.diffusion_model.", "^first_stage_model."),
        (),
        CHECKPOINT,
    ),
    # networks alone
    Rule("U-Net", "LDM with its prefix", ("^model.diffusion_model.",), (), CHECKPOINT),
    Rule("video U-Net", "ModelScope", ("^input_blocks.", "temopral_conv.")),
    Rule("U-Net", "LDM", ("^input_blocks.0.0.weight$", "^out.2.weight$")),
    Rule("video U-Net", "diffusers", ("^down_blocks.", "^transformer_in.", "temp_convs.")),
    Rule("U-Net", "diffusers", ("^down_blocks.", "^up_blocks.", ".attn2.to_k.weight$")),
    Rule(
        "unconditional U-Net",
        "diffusers",
        ("^down_blocks.", "^up_blocks.", "^time_embedding."),
        (".attn2.",),
    ),
    Rule("autoencoder", "LDM with its prefix", ("^first_stage_model.",)),
    Rule("VQ autoencoder", "LDM", ("^quantize.embedding.weight$", "^decoder.conv_in.")),
    Rule("autoencoder", "diffusers", ("^encoder.down_blocks.", "^decoder.up_blocks.")),
    Rule("autoencoder", "LDM", ("^encoder.down.0.", "^decoder.up.0.")),
    Rule("tiny autoencoder", "diffusers", ("^encoder.layers.1.conv.0.weight$",)),
    Rule("tiny autoencoder", "original", ("^encoder.0.weight$", "^decoder.1.weight$")),
    Rule("tiny autoencoder", "original", ("^1.conv.0.weight$", "^1.conv.2.weight$")),
    # segmentation
    Rule(
        "MobileSAM",
        "original",
        ("^image_encoder.layers.0.", "^mask_decoder.", "^prompt_encoder."),
        licence="Apache-2.0",
    ),
    Rule(
        "SAM",
        "original",
        ("^image_encoder.patch_embed.", "^mask_decoder.", "^prompt_encoder."),
        (),
        ("image_encoder.", "mask_decoder.", "prompt_encoder."),
        "Apache-2.0",
    ),
    Rule(
        "SAM",
        "Hugging Face",
        ("^vision_encoder.", "^mask_decoder.", "^shared_image_embedding."),
        (),
        ("vision_encoder.", "mask_decoder.", "prompt_encoder.", "shared_image_embedding."),
        "Apache-2.0",
    ),
    Rule("FastSAM", "Ultralytics", ("model.22.proto.", "model.22.cv4."), (), (), "AGPL-3.0"),
    Rule("FastSAM", "Darkroom", ("^stem.conv.weight$", "^head.prototype.", "^head.bins$")),
    Rule("DeAOT", "original", ("LSTT.layers.", "patch_wise_id_bank."), (), (), "BSD-3-Clause"),
    Rule("segmentation U-Net", "original", ("^start_conv.", "^down1.down_conv.")),
    Rule(  # ResNet encoder
        "segmentation U-Net with ResNet",
        "original",
        ("^initial.0.weight$", "^upconv1.weight$", "^layer1.0.conv1.weight$"),
        known=("initial.", "layer", "conv", "upconv"),
    ),
    # pictures and text, sounds, depth
    Rule(
        "CLIP from scratch", "book", ("^image_projection.", "^text_projection.", "^text_encoder.")
    ),
    Rule("dual encoder", "Darkroom", ("^image_projection.", "^text_projection.", "^text.token.")),
    Rule("safety checker", "diffusers", ("concept_embeds", "vision_model.")),
    Rule("CLIP", "Hugging Face", ("^text_model.encoder.", "^vision_model.encoder.")),
    Rule("CLIP text encoder", "Hugging Face", ("text_model.encoder.layers.0.",)),
    Rule(
        "CLIP text encoder",
        "Hugging Face, bare",
        ("^embeddings.token_embedding.weight$", "^encoder.layers.0.self_attn."),
    ),
    Rule("CLIP image encoder", "Hugging Face", ("vision_model.encoder.layers.0.",)),
    Rule(
        "CLIP",
        "OpenAI",
        ("^visual.", "^token_embedding.weight$", "^input_resolution$"),
        licence="MIT",
    ),
    Rule("CLIP", "open_clip", ("^visual.", "^token_embedding.weight$", "^logit_scale$")),
    Rule("CLIP text encoder", "open_clip", ("^transformer.resblocks.", "^token_embedding.weight$")),
    Rule("DistilBERT", "Hugging Face", ("transformer.layer.0.attention.q_lin.weight$",)),
    Rule("depth estimator", "MiDaS", ("^pretrained.model.", "^scratch.")),
    Rule("depth estimator", "Hugging Face", ("^dpt.", "^neck.", "^head.")),
    # annotators and upscalers
    Rule("annotator: body pose", "OpenPose", ("Mconv1_stage6_L1.", "conv5_1_CPM_L1.")),
    Rule("annotator: hand pose", "OpenPose", ("Mconv1_stage6.", "conv6_1_CPM.")),
    Rule("annotator: soft edges", "HED", ("^block1.convs.0.", "^block5.projection.")),
    Rule("annotator: soft edges", "HED", ("^netVggOne.", "^netCombine.")),
    Rule("annotator: lines", "M-LSD", ("^backbone.features.", "^block15.")),
    Rule("annotator: segments", "UperNet", ("decode_head.", "auxiliary_head.")),
    Rule("annotator: scribble or line art", "original", ("^model0.1.weight$", "^model4.")),
    Rule(
        "ResNet",
        "timm, torchvision",
        ("^conv1.weight$", "^bn1.weight$", "^layer1.0.conv3.weight$", "^layer1.0.downsample.0."),
        known=("conv1.", "bn1.", "layer", "fc."),
    ),
    Rule("image classifier", "ResNet", ("layer1.0.conv1.weight$", "layer4.0.conv1.weight$")),
)  # fmt: skip
RULES = (*_ADDED, *UNOPENED, *_OPENED)  # what is added has the names of what it is added to
