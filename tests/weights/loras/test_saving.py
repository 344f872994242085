"""Adapters written and read again; what diffusers and peft make of LoRAs that we write."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from darkroom.adapters.hypernetwork import Hypernetwork, HypernetworkConfig
from darkroom.adapters.lora import Lora, LowRank, attach
from darkroom.errors import LayoutError
from darkroom.weights.adapters.hypernetworks import open_hypernetwork
from darkroom.weights.adapters.lora import LoraFile, fit, fuse, networks, open_lora
from darkroom.weights.adapters.saving import save_embedding, save_hypernetwork, save_lora
from darkroom.weights.files import read_object
from darkroom.weights.load import load
from weights import loras, tiny


@pytest.fixture(scope="module")
def sd1(tmp_path_factory):
    pipeline = tiny.sd1()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline, load(tiny.save(pipeline, tmp_path_factory.mktemp("sd1") / "sd1"), device="cpu")


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory):
    pipeline = tiny.sdxl()
    return pipeline, load(tiny.save(pipeline, tmp_path_factory.mktemp("xl") / "xl"), device="cpu")


def fitted(model, state: dict[str, Tensor]):
    return fit(LoraFile(name="x", tensors=state), model)


def same(a, b) -> None:
    assert {part: set(found) for part, found in a.items()} == {p: set(f) for p, f in b.items()}
    for part in a:
        for path, one in a[part].items():
            other = b[part][path]
            assert type(one) is type(other)
            assert one.scale == other.scale
            assert one.tensors.keys() == other.tensors.keys()
            for role in one.tensors.keys():
                assert torch.equal(one.tensors[role], other.tensors[role])


@pytest.mark.parametrize("spelling", ["kohya", "diffusers"])
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_loras_come_back_bit_for_bit(family, spelling, request, tmp_path):
    pipeline, model = request.getfixturevalue(family)
    state = loras.kohya(loras.random(pipeline, alpha=1.7), one_tower=family == "sd1")
    odd = next(key.split(".")[0] for key in state if key.startswith("lora_unet_mid"))
    state[f"{odd}.alpha"] = torch.tensor(0.3)
    layers = fitted(model, state)
    path = save_lora(tmp_path / "new.safetensors", model, layers, spelling)
    same(fit(open_lora(path), model), layers)
    if spelling == "kohya":
        written = load_file(path)
        assert written.keys() == state.keys()
        assert all(torch.equal(written[key], state[key]) for key in state)


def test_every_kind_comes_back_as_kohya_has_it(sd1, tmp_path):
    pipeline, model = sd1
    g = torch.Generator().manual_seed(1)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g)

    stem = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_"
    state = {
        f"{stem}attn1_to_q.hada_w1_a": random(32, 2), f"{stem}attn1_to_q.hada_w1_b": random(2, 32),
        f"{stem}attn1_to_q.hada_w2_a": random(32, 2), f"{stem}attn1_to_q.hada_w2_b": random(2, 32),
        f"{stem}attn1_to_q.alpha": torch.tensor(1.3),
        f"{stem}attn2_to_k.lokr_w1": random(4, 4), f"{stem}attn2_to_k.lokr_w2_a": random(8, 2),
        f"{stem}attn2_to_k.lokr_w2_b": random(2, 8), f"{stem}attn2_to_k.alpha": torch.tensor(1.0),
        f"{stem}attn1_to_v.diff": random(32, 32),
        f"{stem}norm1.w_norm": random(32), f"{stem}norm1.b_norm": random(32),
        "lora_unet_conv_norm_out.w_norm": random(32), "lora_unet_conv_norm_out.b_norm": random(32),
        f"{stem}attn1_to_out_0.oft_blocks": random(4, 8, 8),
        f"{stem}attn1_to_out_0.alpha": torch.tensor(0.001),
        "lora_unet_conv_in.lora_down.weight": random(2, 4, 3, 3),
        "lora_unet_conv_in.lora_up.weight": random(32, 2, 1, 1),
        "lora_unet_conv_in.dora_scale": random(1, 4, 1, 1),
        "lora_unet_down_blocks_0_attentions_0_proj_in.diff": random(32, 32, 1, 1),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.diff": random(64, 32),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.diff_b": random(64),
        "lora_te_text_model_encoder_layers_0_layer_norm1.w_norm": random(32),
    }  # fmt: skip
    layers = fitted(model, state)
    path = save_lora(tmp_path / "new.safetensors", model, layers)
    written = load_file(path)
    assert written.keys() == state.keys()
    assert all(torch.equal(written[key], state[key]) for key in state)
    with pytest.raises(LayoutError, match="has no name for hada_w1_a; save it as 'kohya'"):
        save_lora(tmp_path / "x.safetensors", model, layers, "diffusers")

    plain = tiny.our_outputs(model)
    parts = {part: {k: v.clone() for k, v in n.state_dict().items()}
             for part, n in networks(model).items()}  # fmt: skip
    with Lora(model.unet, layers["unet"], 0.1), Lora(networks(model)["text"], layers["text"], 0.1):
        live = tiny.our_outputs(model)
    with fuse(model, (LoraFile(name="x", tensors=state), 0.1)):
        fused = tiny.our_outputs(model)
    assert (live["unet"] - plain["unet"]).abs().max() > 0.01
    for name in ("unet", "text"):
        torch.testing.assert_close(live[name], fused[name], **tiny.TOLERANCE)
    assert all(torch.equal(t, plain[name]) for name, t in tiny.our_outputs(model).items())
    for part, network in networks(model).items():
        assert all(torch.equal(t, parts[part][k]) for k, t in network.state_dict().items())


@torch.no_grad()
@pytest.mark.parametrize("dora", [False, True])
def test_diffusers_and_peft_compute_the_same_with_our_file(sd1, tmp_path, dora):
    pytest.importorskip("peft")
    pipeline, model = sd1
    changes = loras.random(pipeline, only=(*loras.ATTENTION, "conv1"), alpha=1.5)
    state = loras.dotted(changes, "lora_A", "lora_B")
    if dora:  # of the U-Net: transformers leaves out the lengths of a text tower
        changes = [change for change in changes if change.part == "unet"]
        state = loras.dotted(changes, "lora_A", "lora_B")
        g = torch.Generator().manual_seed(3)
        for change in changes:
            key, out = f"{change.part}.{change.path}.lora_magnitude_vector", len(change.up)
            size = torch.rand(out, generator=g) + 0.5
            state[key] = size if change.down.ndim == 2 else size[None, :, None, None]
    layers = fitted(model, state)
    path = save_lora(tmp_path / "new.safetensors", model, layers, "diffusers")
    same(fit(open_lora(path), model), layers)
    written = load_file(path)
    assert all(torch.equal(t, state[key].view(t.shape)) for key, t in written.items())
    plain = tiny.our_outputs(model)
    with Lora(model.unet, layers["unet"]), Lora(networks(model)["text"], layers.get("text", {})):
        ours = tiny.our_outputs(model)
    assert (ours["unet"] - plain["unet"]).abs().max() > 0.05
    try:
        pipeline.load_lora_weights(tmp_path, weight_name=path.name, adapter_name="new")
        theirs = tiny.outputs(pipeline)
    finally:
        pipeline.unload_lora_weights()
    for name in ("text", "unet"):
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_peft_alone_reads_our_folder(sd1, tmp_path):
    peft = pytest.importorskip("peft")
    pipeline, model = sd1
    changes = [c for c in loras.random(pipeline, only=("to_q", "to_v")) if c.part == "unet"]
    layers = fitted(model, loras.kohya(changes))
    save_lora(tmp_path / "new", model, layers, "peft")
    same(fit(open_lora(tmp_path / "new"), model), layers)
    x, text, t = torch.randn(1, 4, 8, 8), torch.randn(1, 5, 32), torch.tensor([100.0])
    with Lora(model.unet, layers["unet"]):
        ours = model.unet(x, t, text)
    wrapped = peft.PeftModel.from_pretrained(tiny.sd1().unet, tmp_path / "new")
    torch.testing.assert_close(ours, wrapped(x, t, text).sample, atol=1e-4, rtol=1e-3)


def test_what_was_trained_here_is_saved(sd1, tmp_path):
    _, model = sd1
    with attach(model.unet, "*.cross_attention.k", rank=2, alpha=1.0) as lora:
        for layer in lora.layers.values():
            assert isinstance(layer, LowRank)
            nn.init.normal_(layer.up)
        path = save_lora(tmp_path / "mine.safetensors", model, {"unet": lora.layers})
        same(fit(open_lora(path), model), {"unet": lora.layers})
    for arguments, message in (
        ((tmp_path / "x.safetensors", model, {"unet": lora.layers}, "a1111"), "no spelling"),
        ((tmp_path / "x.pt", model, {"unet": lora.layers}), "ending .safetensors"),
        ((tmp_path / "x.safetensors", model, {"unet": lora.layers}, "peft"), "a folder"),
        ((tmp_path / "x.safetensors", model, {"unet": {}}), "nothing to save"),
    ):
        with pytest.raises(ValueError, match=message):
            save_lora(*arguments)


def test_hypernetworks_come_back_bit_for_bit(tmp_path):
    config = HypernetworkConfig(layer_structure=(1, 1.5, 2, 1), activation_func="relu",
                                is_layer_norm=True, use_dropout=True)  # fmt: skip
    g = torch.Generator().manual_seed(0)
    shapes = {"linear.0": (12, 8), "linear.2": (12,), "linear.4": (16, 12), "linear.6": (16,),
              "linear.7": (8, 16), "linear.9": (8,)}  # fmt: skip
    pair = [
        {f"{name}.{leaf}": torch.randn(s if leaf == "weight" else s[:1], generator=g)
         for name, s in shapes.items() for leaf in ("weight", "bias")} for _ in "kv"
    ]  # fmt: skip
    path = save_hypernetwork(tmp_path / "own style.pt", Hypernetwork({8: pair}, config))
    content = torch.load(path, weights_only=True)
    assert content["layer_structure"] == [1, 1.5, 2, 1]
    assert content["name"] == "own style"
    for saved, given in zip(content[8], pair, strict=True):
        assert saved.keys() == given.keys()
        assert all(torch.equal(saved[key], given[key]) for key in given)
    found = open_hypernetwork(path)
    assert found.name == "own style"
    assert found.network.config == config
    with pytest.raises(ValueError, match="ending .pt"):
        save_hypernetwork(tmp_path / "x.safetensors", found.network)


def test_embeddings_as_a1111_has_them(tmp_path):
    one, two = torch.rand(2, 768), torch.rand(2, 1280)
    content = read_object(save_embedding(tmp_path / "own.pt", one, step=7))
    assert torch.equal(content["string_to_param"]["*"], one)
    assert (content["name"], content["step"]) == ("own", 7)
    assert torch.equal(
        load_file(save_embedding(tmp_path / "a.safetensors", one))["emb_params"], one
    )
    both = load_file(save_embedding(tmp_path / "b.safetensors", (one, two)))
    assert torch.equal(both["clip_l"], one)
    assert torch.equal(both["clip_g"], two)
    for name, vectors in (("x.pt", (one, two)), ("x.bin", one), ("x.pt", torch.rand(3))):
        with pytest.raises(ValueError, match="expected"):
            save_embedding(tmp_path / name, vectors)
    assert json.dumps(sorted(p.name for p in tmp_path.iterdir())) == (
        '["a.safetensors", "b.safetensors", "own.pt"]'
    )
    save_file({"x": one}, tmp_path / "c.safetensors")
