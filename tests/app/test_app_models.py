"""``darkroom models``: names for files, hashes, and pulls that stop and go on."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from app_commands import command, environment
from safetensors.torch import save_file

from darkroom.app.next_line import next_line
from weights.hub_server import COMMIT, Hub, serving

INDEX = b'{"_class_name": "StableDiffusionPipeline"}'
FOLDER = {
    "model_index.json": INDEX,
    "README.md": b"a model",
    "unet/config.json": b'{"unet": 1}',
    "unet/diffusion_pytorch_model.safetensors": bytes(range(256)) * 8000,
    "unet/diffusion_pytorch_model.fp16.safetensors": b"half" * 1000,
    "unet/diffusion_pytorch_model.bin": b"pickle" * 1000,
    "vae/config.json": b'{"vae": 1}',
    "vae/diffusion_pytorch_model.bin": b"old" * 1000,
    "safety_checker/model.safetensors": b"unused" * 1000,
    "tokenizer/vocab.json": b"{}",
    "v1.ckpt": b"the same again",
}


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    path = tmp_path / "My Model.safetensors"
    path.write_bytes(b"weights" * 100)
    return path


def test_add_list_verify_remove(darkroom, checkpoint, home):
    added = darkroom("models", "add", checkpoint, "--json")
    assert added.code == 0
    assert added.answer["name"] == "My-Model"
    listed = darkroom("models", "list", "--json").answer["models"]
    (mine,) = [model for model in listed if model["place"] == "added"]
    assert mine == {
        "name": "My-Model",
        "place": "added",
        "path": str(checkpoint),
        "size": 700,
        "kind": "",
        "base": "",
        "source": "",
        "problems": [],
    }
    assert darkroom("models", "verify").out == "My-Model: as recorded\n"
    registry = json.loads((home / "models.json").read_text())
    assert registry["models"]["My-Model"]["files"][checkpoint.name]["size"] == 700
    assert darkroom("models", "remove", "My-Model").code == 0
    assert checkpoint.exists()
    listed = darkroom("models", "list", "--json").answer["models"]
    assert [model for model in listed if model["place"] == "added"] == []


def test_a_folder_is_added_with_all_its_files(darkroom, model_folder, home):
    assert darkroom("models", "add", model_folder, "--name", "tiny").code == 0
    files = json.loads((home / "models.json").read_text())["models"]["tiny"]["files"]
    assert "model_index.json" in files
    assert any(name.startswith("unet/") for name in files)
    ended = darkroom("generate", "a cat", "--model", "tiny", "--size", "64x64", "--steps", "1")
    assert ended.code == 0, ended.err


def test_a_changed_file_is_found(darkroom, checkpoint):
    darkroom("models", "add", checkpoint, "--name", "mine")
    data = bytearray(checkpoint.read_bytes())
    data[5] ^= 1
    checkpoint.write_bytes(data)
    ended = darkroom("models", "verify", "mine", "--json")
    assert ended.code == 3
    assert "SHA-256" in ended.answer["models"]["mine"]["problems"][0]
    checkpoint.write_bytes(b"short")
    assert "5 bytes, expected 700" in darkroom("models", "verify").out
    assert "5 bytes, expected 700" in darkroom("generate", "x", "--model", "mine").error
    checkpoint.unlink()
    assert "missing" in darkroom("models", "list").err
    assert darkroom("doctor", "--json").answer["problems"]


def test_names(darkroom, checkpoint, tmp_path):
    other = tmp_path / "other.ckpt"
    other.write_bytes(b"x")
    assert darkroom("models", "add", checkpoint, "--name", "mine").code == 0
    assert darkroom("models", "add", checkpoint, "--name", "mine").code == 0  # the same again
    assert darkroom("models", "add", other, "--name", "mine").code == 2
    assert darkroom("models", "add", other, "--name", "../up").code == 2
    assert darkroom("models", "add", other, "--name", "a b").code == 2
    assert "did you mean 'mine'?" in darkroom("models", "remove", "mime").error
    ended = darkroom("generate", "a cat", "--model", "mime")
    assert ended.code == 3
    assert "did you mean 'mine'?" in ended.error


def test_what_is_no_model_is_not_added(darkroom, tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    assert darkroom("models", "add", tmp_path / "notes.txt").code == 3
    (tmp_path / "empty").mkdir()
    assert darkroom("models", "add", tmp_path / "empty").code == 3


def test_a_damaged_registry_is_one_line(darkroom, home):
    home.mkdir()
    for text in ("", "[]", '{"models": {"a": 1}}', '{"models": {"a": {"path": 1}}}', "\0"):
        (home / "models.json").write_text(text)
        ended = darkroom("models", "list")
        assert ended.code == 3
        assert "models.json" in ended.error


def test_folders_and_the_cache_are_looked_through(darkroom, tmp_path, monkeypatch):
    shelf = tmp_path / "shelf"
    (shelf / "sd").mkdir(parents=True)
    (shelf / "sd" / "model_index.json").write_bytes(INDEX)
    (shelf / "dreamy.ckpt").write_bytes(b"123")
    (shelf / "notes.txt").write_bytes(b"123")
    monkeypatch.setenv("DARKROOM_MODELS", str(shelf))
    snapshot = tmp_path / "huggingface/hub/models--owner--name/snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "model_index.json").write_bytes(INDEX)
    reference = snapshot.parents[1] / "refs" / "main"
    reference.parent.mkdir()
    reference.write_text(COMMIT)
    listed = darkroom("models", "list", "--json").answer["models"]
    found = {model["name"]: model["place"] for model in listed if model["place"] != "built-in"}
    assert found == {"dreamy": "folder", "sd": "folder", "hf:owner/name": "cache"}


def test_a_programs_folder_is_added_as_it_is(darkroom, model_folder, tmp_path):
    webui = tmp_path / "webui"
    (webui / "models/Lora").mkdir(parents=True)
    (webui / "models/Stable-diffusion").mkdir()
    (webui / "models/Stable-diffusion/small").symlink_to(model_folder)
    (webui / "models/Lora/film.safetensors").write_bytes(b"not one")
    added = darkroom("models", "add", webui, "--json")
    assert added.code == 0
    assert added.answer["kinds"] == {"checkpoint": 1, "LoRA": 1}
    listed = {m["name"]: m for m in darkroom("models", "list", "--json").answer["models"]}
    assert [listed[name]["kind"] for name in ("small", "film")] == ["checkpoint", "LoRA"]
    assert listed["emoji-edges"]["kind"] == "ControlNet"
    assert "film\tLoRA\tfolder\t7 bytes" in darkroom("models", "list").out
    ended = darkroom("generate", "a cat", "--model", "small", "--size", "64x64", "--steps", "1")
    assert ended.code == 0, ended.err
    assert "did you mean 'small'?" in darkroom("generate", "a", "--model", "smal").error
    assert "smal.ckpt: no such file" in darkroom("generate", "a", "--model", "smal.ckpt").error
    assert darkroom("inspect", "small", "--json").answer["kind"] == "checkpoint"
    assert darkroom("models", "add", webui, "--name", "x").code == 2
    assert darkroom("models", "remove", webui).code == 0
    assert darkroom("generate", "a cat", "--model", "small").code == 3


def test_add_says_what_to_type_next(darkroom, tmp_path, model_folder):
    assert "--model small" in darkroom("models", "add", model_folder).err
    lora = tmp_path / "fox.safetensors"
    save_file({"lora_unet_x.lora_down.weight": torch.ones(2, 8)}, lora)
    ended = darkroom("models", "add", lora, "--json")
    assert ended.answer["next"] == 'darkroom generate "..." --lora fox:0.8 --model MODEL'
    assert 'use it: darkroom generate "..." --lora fox:0.8' in ended.err


@pytest.mark.parametrize(
    ("kind", "base", "variant", "expected"),
    [
        ("checkpoint", "SD 1.x", "inpainting", "darkroom edit PHOTO"),
        ("checkpoint", "SD 2.x", "depth to image", "--kind depth --model 'my x'"),
        ("checkpoint", "SDXL refiner", "", "--refiner"),
        ("textual inversion", "SDXL", "", "--embedding"),
        ("hypernetwork", "", "", "--hypernetwork"),
        ("ControlNet", "SD 1.x", "", "--net 'my x' --model MODEL (of SD 1.x)"),
        ("CLIP", "", "", "darkroom classify"),
        ("SAM", "", "", "darkroom segment"),
        ("annotator: lines", "", "", "--kind mlsd --annotator"),
        ("upscaler", "", "", "darkroom inspect"),
    ],
)
def test_each_kind_has_its_line(kind, base, variant, expected):
    assert expected in next_line(kind, base, variant, "my x")


def test_pull_without_a_known_name_lists_the_catalogue(darkroom):
    ended = darkroom("models", "pull")
    assert ended.code == 0
    assert "sd15\tsd1\tCreativeML-OpenRAIL-M\thf:stable-diffusion-v1-5/" in ended.out
    ended = darkroom("models", "pull", "sdx1")
    assert ended.code == 3
    assert "did you mean 'sdxl'?" in ended.error
    assert "sd15\t" in ended.out
    assert darkroom("models", "pull", "--json").answer["catalogue"][0]["licence"]


def pull(hub: Hub, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        command("models", "pull", *arguments),
        env=online(hub, tmp_path),
        capture_output=True,
        text=True,
        timeout=120,
    )


def online(hub: Hub, tmp_path: Path) -> dict[str, str]:
    return environment(
        HF_ENDPOINT=hub.url,
        HF_HUB_OFFLINE="0",
        HF_HUB_DISABLE_XET="1",
        HF_HOME=str(tmp_path / "huggingface"),
    )


def test_pull_fetches_what_is_needed_once_and_checks_it(darkroom, tmp_path, home):
    with serving(Hub(dict(FOLDER))) as hub:
        ended = pull(hub, tmp_path, "hf:owner/name", "--json")
        assert ended.returncode == 0, ended.stderr
        answer = json.loads(ended.stdout)
        assert sorted(answer["files"]) == [
            "model_index.json",
            "tokenizer/vocab.json",
            "unet/config.json",
            "unet/diffusion_pytorch_model.safetensors",
            "vae/config.json",
            "vae/diffusion_pytorch_model.bin",
        ]
        assert answer["source"] == f"hf:owner/name@{COMMIT}"
        assert "pulling: 100 %" in ended.stderr
        fetched = [path for method, path, _ in hub.requests if method == "GET"]
        again = pull(hub, tmp_path, "hf:owner/name")
        assert again.returncode == 0
        files = [path for path in fetched if "/resolve/" in path]
        assert len(files) == len(answer["files"])
        later = [p for m, p, _ in hub.requests if m == "GET" and "/resolve/" in p]
        assert later == files  # the second time nothing was fetched
    assert darkroom("models", "verify", "name").code == 0
    (entry,) = json.loads((home / "models.json").read_text())["models"].values()
    assert Path(entry["path"]).name == COMMIT


@pytest.mark.slow
def test_pull_one_file_and_another_variant(tmp_path, home):
    with serving(Hub(dict(FOLDER))) as hub:
        one = pull(hub, tmp_path, "hf:owner/name:v1.ckpt", "--json")
        assert json.loads(one.stdout)["name"] == "v1"
        assert Path(json.loads(one.stdout)["path"]).read_bytes() == FOLDER["v1.ckpt"]
        half = pull(hub, tmp_path, "hf:owner/name", "--variant", "fp16", "--json")
        assert "unet/diffusion_pytorch_model.fp16.safetensors" in json.loads(half.stdout)["files"]


def test_a_pull_that_broke_off_goes_on(tmp_path):
    name = "unet/diffusion_pytorch_model.safetensors"
    files = {**FOLDER, name: bytes(range(256)) * 100_000}  # the hub's client reads 10 MB at a time
    with serving(Hub(files, cut={name: 15_000_000})) as hub:
        ended = pull(hub, tmp_path, "hf:owner/name", "--json")
        assert ended.returncode == 0, ended.stderr
        ranges = [r for m, path, r in hub.requests if m == "GET" and path.endswith(name)]
        assert ranges[0] == ""
        assert int(ranges[-1].removeprefix("bytes=").rstrip("-")) >= 10_000_000, ranges


def test_wrong_bytes_are_fetched_again_and_then_refused(tmp_path, home):
    name = "unet/diffusion_pytorch_model.safetensors"
    with serving(Hub(dict(FOLDER), damage={name: 1})) as hub:
        assert pull(hub, tmp_path, "hf:owner/name").returncode == 0
    with serving(Hub({**FOLDER, name: b"new" * 9000}, damage={name: 9})) as hub:
        ended = pull(hub, tmp_path / "other", "hf:owner/name", "--name", "bad")
        assert ended.returncode == 3
        assert "hash" in ended.stderr
    assert "bad" not in json.loads((home / "models.json").read_text())["models"]


def test_what_the_hub_may_answer(tmp_path):
    with serving(Hub(dict(FOLDER), status=404)) as hub:
        ended = pull(hub, tmp_path, "hf:owner/name")
        assert ended.returncode == 3
        assert ended.stderr.count("\n") == 1
    ended = pull(hub, tmp_path, "hf:owner/name")  # no longer there
    assert ended.returncode == 3
    assert ended.stderr.count("\n") == 1
    with serving(Hub({"README.md": b"nothing"})) as hub:
        assert "no weights" in pull(hub, tmp_path, "hf:owner/name").stderr
    with serving(Hub({"a.ckpt": b"1", "b.ckpt": b"2"})) as hub:
        assert "a.ckpt, b.ckpt" in pull(hub, tmp_path, "hf:owner/name").stderr
        assert "a.ckpt" in pull(hub, tmp_path, "hf:owner/name:aa.ckpt").stderr


def test_names_of_files_never_leave_the_cache(tmp_path):
    files = {**FOLDER, "../../../evil.json": b"{}", "unet/../../x.json": b"{}", ".hidden": b"x"}
    with serving(Hub(files)) as hub:
        ended = pull(hub, tmp_path, "hf:owner/name", "--json")
        assert ended.returncode == 3, ended.stderr
        assert "'../../../evil.json'; do not use it" in ended.stderr


def test_ctrl_c_in_a_pull(tmp_path, home):
    big = {**FOLDER, "unet/diffusion_pytorch_model.safetensors": os.urandom(1 << 20) * 64}
    with serving(Hub(big)) as hub:
        process = subprocess.Popen(
            command("models", "pull", "hf:owner/name"),
            env=online(hub, tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            while not any("pytorch_model.safe" in path for _, path, _ in list(hub.requests)):
                assert process.poll() is None
                time.sleep(0.005)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        if process.returncode != 0:  # else it was quicker than the signal
            assert process.returncode == 130, err
            assert not (home / "models.json").exists()
        assert b"Traceback" not in err
        assert pull(hub, tmp_path, "hf:owner/name").returncode == 0


def test_a_malformed_name(darkroom):
    for name in ("hf:owner", "hf:owner/na me", "hf:../../x", "owner"):
        assert darkroom("models", "pull", name).code == 3
