"""Models that Darkroom does not open: every door names them and says what it opens instead."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import darkroom as dr
from darkroom.errors import CheckpointError, ModelMismatchError
from darkroom.weights.inspect import inspect, unopened

# kind, names as the published files have them
FILES = [
    ("FLUX.1 [dev] transformer", ["double_blocks.0.img_attn.norm.key_norm.scale",
     "single_blocks.0.linear1.weight", "guidance_in.in_layer.weight", "img_in.weight"]),
    ("FLUX.1 [schnell] transformer", ["double_blocks.0.img_attn.proj.weight", "img_in.weight"]),
    ("FLUX.1 [schnell] transformer", ["model.diffusion_model.double_blocks.0.img_attn.qkv.weight",
     "text_encoders.clip_l.transformer.text_model.embeddings.token_embedding.weight",
     "vae.decoder.conv_in.weight"]),
    ("FLUX.1 [dev] transformer", ["single_transformer_blocks.0.proj_mlp.weight",
     "x_embedder.weight", "time_text_embed.guidance_embedder.linear_1.weight"]),
    ("FLUX.2 transformer", ["double_stream_modulation_img.lin.weight",
     "double_blocks.0.img_attn.qkv.weight"]),
    ("Stable Diffusion 3 transformer", ["first_stage_model.decoder.conv_in.weight",
     "model.diffusion_model.joint_blocks.0.context_block.attn.qkv.weight",
     "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"]),
    ("Stable Diffusion 3.5 transformer", ["joint_blocks.0.x_block.attn.ln_q.weight",
     "model.diffusion_model.joint_blocks.0.x_block.attn.ln_q.weight"]),
    ("Stable Cascade network", ["clip_txt_pooled_mapper.weight",
     "down_blocks.0.0.depthwise.weight", "up_blocks.0.0.depthwise.weight"]),
    ("PixArt transformer", ["adaln_single.emb.timestep_embedder.linear_1.weight",
     "caption_projection.linear_1.weight", "pos_embed.proj.weight"]),
    ("Hunyuan-DiT transformer", ["mlp_t5.0.weight", "text_embedding_padding", "x_embedder.bias"]),
    ("Kandinsky network", ["prd_embedding", "clip_mean", "transformer_blocks.0.norm1.weight"]),
    ("AuraFlow transformer", ["model.double_layers.0.attn.w1q.weight", "model.register_tokens"]),
    ("Stable Video Diffusion model", ["conditioner.embedders.0.open_clip.model.logit_scale",
     "model.diffusion_model.input_blocks.1.0.time_stack.in_layers.2.weight",
     "model.diffusion_model.input_blocks.1.0.time_mixer.mix_factor",
     "first_stage_model.decoder.conv_in.weight"]),
    ("Stable unCLIP model", ["noise_augmentor.data_mean", "embedder.model.visual.proj",
     "model.diffusion_model.out.0.weight"]),
    ("FLUX.1 ControlNet", ["controlnet_x_embedder.weight", "x_embedder.weight",
     "single_transformer_blocks.0.proj_mlp.weight", "context_embedder.weight"]),
    ("motion module",
     ["down_blocks.0.motion_modules.0.temporal_transformer.proj_in.weight"]),
    ("upscaler (ESRGAN)", ["conv_first.weight", "body.0.rdb1.conv1.weight"]),
    ("T5 text encoder", ["shared.weight", "encoder.block.0.layer.0.SelfAttention.q.weight"]),
    ("SAM 2", ["image_encoder.trunk.patch_embed.proj.weight", "sam_mask_decoder.iou_token.weight",
     "memory_attention.layers.0.norm1.weight"]),
    ("SAM 2.1", ["image_encoder.trunk.patch_embed.proj.weight", "no_obj_embed_spatial"]),
    ("SAM-HQ", ["image_encoder.patch_embed.proj.weight", "mask_decoder.hf_token.weight",
     "prompt_encoder.no_mask_embed.weight"]),
    ("EfficientSAM", ["image_encoder.patch_embed.proj.weight", "mask_decoder.iou_token.weight",
     "mask_decoder.final_output_upscaling_layers.0.0.weight",
     "prompt_encoder.point_embeddings.weight"]),
    ("EdgeTAM", ["image_encoder.trunk.body.stem.conv.weight", "spatial_perceiver.latents"]),
    ("YOLO detection model", ["model.0.conv.weight", "model.22.cv2.0.0.conv.weight",
     "model.22.dfl.conv.weight"]),
    ("YOLO detection model", ["model.model.23.cv2.0.0.conv.weight",
     "model.model.23.dfl.conv.weight"]),
    ("CoCa", ["visual.conv1.weight", "text.token_embedding.weight", "logit_scale",
     "text_decoder.resblocks.0.attn.in_proj_weight"]),
    ("SigLIP", ["logit_bias", "logit_scale", "vision_model.head.probe",
     "vision_model.encoder.layers.0.layer_norm1.weight",
     "text_model.encoder.layers.0.layer_norm1.weight"]),
    ("SigLIP", ["logit_bias", "logit_scale", "visual.trunk.blocks.0.norm1.weight",
     "text.transformer.resblocks.0.ln_1.weight"]),
    ("CLIP with a Hugging Face text tower (open_clip)", ["visual.conv1.weight", "logit_scale",
     "text.transformer.embeddings.word_embeddings.weight", "text.proj.0.weight"]),
    ("CLIP with a timm vision tower (open_clip)", ["visual.trunk.stem.0.weight", "logit_scale",
     "token_embedding.weight"]),
    ("EVA-CLIP", ["visual.blocks.0.attn.q_bias", "visual.rope.freqs_cos", "logit_scale",
     "text.token_embedding.weight"]),
    ("BLIP", ["visual_encoder.blocks.0.norm1.weight", "text_decoder.bert.embeddings.position_ids"]),
    ("IP-Adapter", ["image_proj.proj.weight", "ip_adapter.1.to_k_ip.weight"]),
]  # fmt: skip


def test_the_docs_list_them_all():
    page = Path(__file__).parents[2] / "docs" / "files.md"
    if not page.is_file():
        pytest.skip("an installed package without its docs")
    named = page.read_text("utf-8").partition("## What is named and refused")[2]
    rows = [row.split("|")[2] for row in named.splitlines() if row.count("|") == 3][2:]
    listed = [kind.strip() for row in rows for kind in row.split(",")]
    assert sorted(listed) == sorted(unopened._INSTEAD)


@pytest.mark.parametrize(("kind", "names"), FILES, ids=lambda value: str(value)[:24])
def test_files(tmp_path, kind, names):
    path = tmp_path / "a.safetensors"
    save_file({name: torch.zeros(2) for name in names}, path)
    report = inspect(path)
    assert report.kind == kind
    assert any("which Darkroom does not open; it opens" in note for note in report.notes)
    for door in (dr.load, dr.open_segmenter, dr.open_encoder):
        with pytest.raises(CheckpointError, match="Darkroom does not open; it opens") as error:
            door(path)
        assert f"{kind}, which" in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"architectures": ["SiglipModel"]}, "a SigLIP"),
        ({"architectures": ["Sam2Model"]}, "a SAM 2"),
        ({"_class_name": "FluxTransformer2DModel"}, "a FLUX.1 transformer"),
        ({"_class_name": "SD3Transformer2DModel"}, "a Stable Diffusion 3 transformer"),
        ({"architectures": ["T5EncoderModel"]}, "a T5 text encoder"),
    ],
)
def test_folders(tmp_path, config, kind):
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"a.weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="does not open; it opens") as error:
        dr.load(tmp_path)
    assert f"{kind}, which" in str(error.value)
    assert any(kind in note for note in inspect(tmp_path).notes)


@pytest.mark.parametrize(
    ("pipeline", "kind"),
    [
        ("FluxPipeline", "FLUX.1"),
        ("StableDiffusion3Pipeline", "Stable Diffusion 3"),
        ("StableCascadePriorPipeline", "Stable Cascade"),
        ("PixArtSigmaPipeline", "PixArt"),
        ("KolorsPipeline", "Kolors"),
        ("StableVideoDiffusionPipeline", "Stable Video Diffusion"),
    ],
)
def test_pipelines(tmp_path, pipeline, kind):
    index = {"_class_name": pipeline, "unet": ["diffusers", "SomeUNet"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=f"{kind} .*which Darkroom does not open; it opens"):
        dr.load(tmp_path)
    assert any("does not open" in note for note in inspect(tmp_path).notes)
    index = {"_class_name": "MyPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(
        CheckpointError, match=r"a part 'transformer' .*a FLUX.1 transformer, which"
    ):
        dr.load(tmp_path)


def test_glora(tmp_path):
    path = tmp_path / "g.safetensors"
    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    parts = ("a1", "a2", "b1", "b2")
    save_file({f"{stem}.{part}.weight": torch.zeros(4, 4) for part in parts}, path)
    assert inspect(path).kind == "GLoRA"
    from darkroom.weights.adapters.lora import open_lora

    with pytest.raises(ModelMismatchError, match="expected a LoRA, this is: GLoRA"):
        open_lora(path)
    with pytest.raises(CheckpointError, match="a GLoRA, which Darkroom does not open"):
        dr.load(path)


@pytest.mark.parametrize(
    "name",
    [
        "lora_unet_double_blocks_0_img_attn_proj.lora_down.weight",
        "lora_unet_single_blocks_0_linear1.lora_down.weight",
        "transformer.single_transformer_blocks.0.proj_mlp.lora_A.weight",
    ],
)
def test_a_lora_for_flux(tmp_path, name):
    path = tmp_path / "l.safetensors"
    other = name.replace("down", "up").replace("_A", "_B")
    save_file({name: torch.zeros(4, 8), other: torch.zeros(8, 4)}, path)
    assert (inspect(path).kind, inspect(path).base) == ("LoRA", "FLUX.1")
