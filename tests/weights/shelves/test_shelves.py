"""Folders of models of other programs, as they are: what is found in them, and by which names."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from darkroom.errors import ConfigError, ModelNotFoundError
from darkroom.weights import registry
from darkroom.weights.adapters.embeddings import mentioned
from darkroom.weights.adapters.finding import find
from darkroom.weights.locate import locate
from darkroom.weights.shelves import kinds, matching, open_shelves
from darkroom.weights.shelves.comfyui import extra_paths
from darkroom.weights.shelves.walk import is_model_folder, kind_of_folder

LORA = "lora_unet_down_blocks_0_attentions_0_proj_in"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    monkeypatch.delenv("DARKROOM_MODELS", raising=False)
    return tmp_path / "home"


def put(root: Path, *names: str) -> Path:
    """Files of a few different bytes each."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return root


def lora(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{LORA}.lora_down.weight": torch.ones(2, 8),
        f"{LORA}.lora_up.weight": torch.ones(8, 2),
    }
    save_file(tensors, path)
    return path


def found() -> dict[str, str]:
    shelves = open_shelves()
    names = shelves.names()
    return {names[shelved.path]: shelved.kind for shelved in shelves.found}


A1111 = {
    "models/Stable-diffusion/dreamshaper_8.safetensors": "checkpoint",
    "models/Stable-diffusion/xl/juggernaut.safetensors": "checkpoint",
    "models/VAE/vae-ft-mse.pt": "autoencoder",
    "models/VAE-approx/taesd.pth": "tiny autoencoder",
    "models/Lora/style/film.safetensors": "LoRA",
    "models/LyCORIS/fur.safetensors": "LoRA",
    "models/hypernetworks/anime.pt": "hypernetwork",
    "models/ControlNet/control_v11p_sd15_canny.pth": "ControlNet",
    "models/ESRGAN/4x.pth": "upscaler",
    "embeddings/easynegative.pt": "textual inversion",
    "extensions/sd-webui-controlnet/models/depth.safetensors": "ControlNet",
}
COMFYUI = {
    "models/checkpoints/sd15/dreamy.safetensors": "checkpoint",
    "models/diffusion_models/part.safetensors": "U-Net",
    "models/unet/other.safetensors": "U-Net",
    "models/vae/mse.safetensors": "autoencoder",
    "models/loras/film.safetensors": "LoRA",
    "models/controlnet/canny.safetensors": "ControlNet",
    "models/embeddings/bad.pt": "textual inversion",
    "models/upscale_models/4x.pth": "upscaler",
    "models/clip/clip_l.safetensors": "text encoder",
    "models/text_encoders/t5.safetensors": "text encoder",
    "models/clip_vision/h14.safetensors": "CLIP image encoder",
}
INVOKEAI = {
    "models/sd-1/main/dreamy.safetensors": "checkpoint",
    "models/sdxl/main/base.safetensors": "checkpoint",
    "models/sd-1/vae/mse.pt": "autoencoder",
    "models/sd-1/lora/film.safetensors": "LoRA",
    "models/sd-1/embedding/bad.pt": "textual inversion",
    "models/any/clip_vision/h14.safetensors": "CLIP image encoder",
    "autoimport/lora/new.safetensors": "LoRA",
}
NOISE = ("venv/lib/torch/thing.pt", ".git/objects/x.bin", "outputs/x.pt", "tests/x.ckpt")


@pytest.mark.parametrize("layout", [A1111, COMFYUI, INVOKEAI], ids=["A1111", "ComfyUI", "InvokeAI"])
@pytest.mark.parametrize("how", ["program", "models", "variable"])
def test_a_programs_folder_is_found_as_it_is(layout, how, tmp_path, monkeypatch):
    root = put(tmp_path / "program", *layout, *NOISE)
    put(root, "models/Stable-diffusion/dreamshaper_8.png", "models/Lora/note.txt")
    if how == "variable":
        monkeypatch.setenv("DARKROOM_MODELS", str(root))
    else:
        registry.add_folder(root if how == "program" else root / "models")
    if how == "models":
        layout = {name: kind for name, kind in layout.items() if name.startswith("models/")}
    assert found() == {Path(name).stem: kind for name, kind in layout.items()}
    for name in layout:
        assert locate(Path(name).stem).path == root / name
        assert locate(Path(name).name).path == root / name


def test_forge_has_folders_of_its_own(tmp_path):
    names = {"models/text_encoder/t5.safetensors": "text encoder"}
    names["extensions-builtin/sd_forge_controlnet/models/x.pth"] = "ControlNet"
    registry.add_folder(put(tmp_path, *names))
    assert found() == {"t5": "text encoder", "x": "ControlNet"}


def test_folders_of_diffusers_are_one_model_each(tmp_path):
    put(tmp_path / "shelf/sd-1/main/nice", "model_index.json", "unet/x.safetensors", "vae/x.bin")
    put(tmp_path / "shelf/sd-1/controlnet/canny", "config.json", "x.safetensors")
    put(tmp_path / "shelf/sd-1/lora/fox", "pytorch_lora_weights.safetensors", "optimizer.bin")
    put(tmp_path / "shelf/lora", "pytorch_lora_weights.safetensors", "other.safetensors")
    registry.add_folder(tmp_path / "shelf")
    assert found() == {
        "nice": "checkpoint",
        "canny": "ControlNet",
        "fox": "LoRA",
        "pytorch_lora_weights": "LoRA",
        "other": "LoRA",
    }
    assert locate("nice").path == tmp_path / "shelf/sd-1/main/nice"
    assert find("fox", "LoRA").name == "pytorch_lora_weights.safetensors"


def test_two_of_a_name_are_not_chosen_between(tmp_path):
    root = put(tmp_path / "shelf", "a/dreamy.safetensors", "b/dreamy.ckpt", "b/only.ckpt")
    registry.add_folder(root)
    with pytest.raises(ModelNotFoundError, match=r"2 models .*a/dreamy.safetensors, b/dreamy.ckpt"):
        locate("dreamy")
    assert locate("dreamy.ckpt").path == root / "b/dreamy.ckpt"
    assert locate("a/dreamy").path == root / "a/dreamy.safetensors"
    assert locate("b\\dreamy.ckpt").path == root / "b/dreamy.ckpt"
    assert set(found()) == {"dreamy.safetensors", "dreamy.ckpt", "only"}
    with pytest.raises(ModelNotFoundError, match="did you mean 'only'"):
        locate("onli")


def test_a_lora_and_a_checkpoint_may_share_a_name(tmp_path):
    root = put(tmp_path / "shelf", "models/Stable-diffusion/fox.ckpt", "models/Lora/fox.pt")
    registry.add_folder(root)
    assert locate("fox").path == root / "models/Stable-diffusion/fox.ckpt"
    assert find("fox", "LoRA") == root / "models/Lora/fox.pt"
    flat = tmp_path / "flat"  # where no folder says what is what, headers do
    put(flat, "b/cat.ckpt")
    lora(flat / "a/cat.safetensors")
    registry.add_folder(flat)
    assert locate("cat").path == flat / "b/cat.ckpt"
    assert find("cat", "LoRA") == flat / "a/cat.safetensors"


def test_two_loras_of_a_name_are_not_chosen_between(tmp_path):
    lora(tmp_path / "models/Lora/a/film.safetensors")
    lora(tmp_path / "models/Lora/b/film.safetensors")
    registry.add_folder(tmp_path)
    with pytest.raises(ModelNotFoundError, match="2 models are called 'film'"):
        find("film", "LoRA")
    assert find("b/film", "LoRA") == tmp_path / "models/Lora/b/film.safetensors"


def test_what_is_not_there(tmp_path):
    lora(tmp_path / "models/Lora/film-grain.safetensors")
    registry.add_folder(tmp_path)
    with pytest.raises(ModelNotFoundError, match=r"no LoRA is called 'film-grein'.*'film-grain'"):
        find("film-grein", "LoRA")
    for path in ("old/film-grain2.safetensors", "film-grain2.safetensors"):
        with pytest.raises(ModelNotFoundError, match=f"^{path}: no such file.*'film-grain'"):
            find(path, "LoRA")


def test_a_word_of_a_prompt_is_no_lora(tmp_path):
    """Nor is a preview's: in folders that say what they hold, no header is read."""
    lora(tmp_path / "models/Lora/cat.safetensors")
    put(tmp_path, "models/Stable-diffusion/cat.png", "embeddings/dog.preview.png")
    registry.add_folder(tmp_path)
    assert mentioned(["a cat and a dog"]) == []


def test_links_are_followed_once(tmp_path):
    store = put(tmp_path / "store", "dreamy.ckpt")
    shelf = put(tmp_path / "shelf", "models/other.ckpt")
    (shelf / "models/Stable-diffusion").symlink_to(store)
    (shelf / "models/loop").symlink_to(shelf / "models")
    (shelf / "models/gone.ckpt").symlink_to(tmp_path / "nothing")
    registry.add_folder(shelf)
    assert found() == {"dreamy": "checkpoint", "other": ""}


def test_a_walk_has_an_end(tmp_path, monkeypatch):
    put(tmp_path, *(f"{i}.ckpt" for i in range(30)))
    put(tmp_path, "/".join("abcdefghijkl") + "/deep.ckpt")
    registry.add_folder(tmp_path)
    assert "deep" not in found()
    monkeypatch.setattr("darkroom.weights.shelves.walk.MOST", 10)
    shelves = open_shelves()
    assert len(shelves.found) < 10
    assert "more than 10 entries" in shelves.problems[0]


YAML = """
# as ComfyUI's example has it
a111:
    base_path: {base}
    checkpoints: models/Stable-diffusion
    configs: models/Stable-diffusion
    loras: |
         models/Lora
         models/LyCORIS
    embeddings: embeddings
comfyui:
    is_default: true
    checkpoints: near/checkpoints/
nothing:
"""


def test_extra_model_paths(tmp_path):
    base = put(tmp_path / "webui", *A1111)
    here = put(tmp_path / "ComfyUI", "models/checkpoints/own.ckpt", "near/checkpoints/by.ckpt")
    file = here / "extra_model_paths.yaml"
    file.write_text(YAML.format(base=base))
    expected = {"dreamshaper_8": "checkpoint", "juggernaut": "checkpoint", "film": "LoRA"}
    expected |= {"fur": "LoRA", "easynegative": "textual inversion", "by": "checkpoint"}
    registry.add_folder(file)
    assert found() == expected
    registry.remove_folder(file)
    registry.add_folder(here)
    assert found() == expected | {"own": "checkpoint"}
    assert locate("fur").path == base / "models/LyCORIS/fur.safetensors"


@pytest.mark.parametrize(
    "text",
    ["[1, 2]", "a: b", "a:\n  loras: [x]", "a:\n  base_path: 3", "a: [", "a: !!python/object:x {}",
     "[" * 5000, "\0", "x" * 300_000],
    ids=["list", "text", "paths", "base", "broken", "code", "deep", "nul", "large"],
)  # fmt: skip
def test_extra_model_paths_that_are_none(text, tmp_path):
    file = tmp_path / "extra_model_paths.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="extra_model_paths.yaml: "):
        list(extra_paths(file))
    put(tmp_path, "models/Lora/film.pt")
    registry.add_folder(tmp_path)
    assert found() == {"film": "LoRA"}  # the rest is found nevertheless
    assert "extra_model_paths.yaml" in open_shelves().problems[0]


def test_headers_are_read_once(tmp_path, home, monkeypatch):
    path = lora(tmp_path / "x.safetensors")
    first = kinds.Kinds()
    assert first.of(path).kind == "LoRA"
    first.save()

    def read(path):
        raise AssertionError("read again")

    monkeypatch.setattr("darkroom.weights.inspect.inspect", read)
    assert kinds.Kinds().of(path).kind == "LoRA"
    assert kinds.kind_of(path) == "LoRA"
    path.write_bytes(b"changed")
    assert kinds.Kinds().known(path) is None
    for text in (
        "",
        "[]",
        '{"rules": 1}',
        json.dumps({"rules": kinds._rules(), "kinds": {"a": 1}}),
    ):
        (home / kinds.FILE).write_text(text)
        assert kinds.Kinds().known(path) is None


def test_small_facts():
    assert kind_of_folder("Stable-diffusion") == "checkpoint"
    assert not is_model_folder({"config.json", "readme.md"})
    assert matching("../x", []) == matching("", []) == []
