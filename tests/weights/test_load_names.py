"""Names lead to models: paths, registered and built-in names, caches, catalogue; local first."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from darkroom.errors import CheckpointError, ConfigError, ModelNotFoundError
from darkroom.weights import locate as locating
from darkroom.weights import registry
from darkroom.weights.inspect import inspect
from darkroom.weights.load import load
from darkroom.weights.locate import (
    Remote,
    best_set,
    cached_folder,
    is_complete,
    locate,
    parse_remote,
)
from darkroom.weights.save import save
from weights import tiny
from weights.hub_server import Hub, serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.save(tiny.sd1(), tmp_path_factory.mktemp("names") / "sd1")


@pytest.fixture(autouse=True)
def homes(tmp_path, monkeypatch):
    """No cache and no registry of the machine that runs the tests."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "DARKROOM_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("DARKROOM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cache(root: Path, repository: str, folder: Path, revision: str = "main") -> Path:
    """Put ``folder`` into huggingface_hub's cache as a download would."""
    place = root / "hf" / "hub" / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / revision).write_text(COMMIT)
    return Path(shutil.copytree(folder, place / "snapshots" / COMMIT))


def test_our_cache_rules_are_those_of_huggingface_hub(homes, folder):
    from huggingface_hub import snapshot_download

    place = cache(homes, "owner/name", folder)
    found = snapshot_download("owner/name", cache_dir=locating.cache_root(), local_files_only=True)
    assert Path(found) == place == cached_folder(Remote("owner/name"))


def test_path_string_and_home(folder, homes, monkeypatch):
    assert locate(folder).path == folder
    assert locate(str(folder)).path == folder
    monkeypatch.setenv("HOME", str(folder.parent))
    assert locate("~/sd1").path == folder


def test_cached_repository(homes, folder):
    place = cache(homes, "owner/name", folder)
    assert locate("hf:owner/name").path == place
    assert locate("owner/name").path == place, "without hf: from the cache alone"
    assert locate(f"hf:owner/name@{COMMIT}").path == place
    file = place / "unet" / "diffusion_pytorch_model.safetensors"
    assert locate("hf:owner/name:unet/diffusion_pytorch_model.safetensors").path == file
    assert load("hf:owner/name").source == "hf:owner/name"


@pytest.mark.parametrize("revision", ["v1.0", "refs-like/branch"])
def test_revision(homes, folder, revision):
    place = homes / "hf" / "hub" / "models--a--b"
    (place / "refs" / revision).parent.mkdir(parents=True)
    (place / "refs" / revision).write_text(COMMIT)
    shutil.copytree(folder, place / "snapshots" / COMMIT)
    assert locate(f"hf:a/b@{revision}").path == place / "snapshots" / COMMIT


@pytest.mark.parametrize(
    "cached",
    ["runwayml/stable-diffusion-v1-5", "stable-diffusion-v1-5/stable-diffusion-v1-5"],
)
@pytest.mark.parametrize("asked", ["runwayml/stable-diffusion-v1-5", "sd15", "SD-1.5"])
def test_names_in_books_find_any_cached_copy(homes, folder, cached, asked):
    place = cache(homes, cached, folder)
    located = locate(asked)
    assert located.path == place
    assert located.known.licence == "CreativeML-OpenRAIL-M"
    assert load(asked).name == "stable-diffusion-v1-5/stable-diffusion-v1-5"


def test_a_path_goes_before_the_catalogue(homes, folder):
    shutil.copytree(folder, homes / "runwayml" / "stable-diffusion-v1-5")
    assert locate("runwayml/stable-diffusion-v1-5").path == Path("runwayml/stable-diffusion-v1-5")


def test_registered_and_built_in_names(homes, folder, monkeypatch):
    files = registry.files_of(folder)
    stamps = {name: registry.Stamp(path.stat().st_size, "0" * 64) for name, path in files.items()}
    registry.register("mine", folder, stamps)
    assert locate("mine").path == folder
    monkeypatch.setattr(locating, "ASSETS", homes / "assets")
    shutil.copytree(folder, homes / "assets" / "emoji")
    assert load("emoji").source == "emoji"
    shutil.copytree(folder, homes / "emoji")
    assert locate("emoji").path == homes / "assets" / "emoji", "a name; ./emoji is the folder"
    assert locate("./emoji").path == Path("emoji")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sdxl-turbp", "no model is called 'sdxl-turbp'; did you mean 'sdxl-turbo'?"),
        ("zzzz", "hf:owner/name"),
        ("", "the model's name is empty"),
        ("models/none.safetensors", "models/none.safetensors: no such file or folder; check"),
        ("nobody/nothing-1.0", "to download it say hf:nobody/nothing-1.0"),
        ("runwayml/stable-difusion-v1-5", "did you mean 'runwayml/stable-diffusion-v1-5'?"),
        ("hf:nobody", "is not a remote name; expected hf:owner/name"),
        ("hf:../../etc", "is not a remote name"),
        ("hf:a/b:../x", "is not a remote name"),
        ("hf:nobody/nothing", "HF_HUB_OFFLINE forbids the network"),
        (
            "runwayml/stable-diffusion-inpainting",
            "is stable-diffusion-v1-5/stable-diffusion-inpainting today (runwayml deleted",
        ),
    ],
)
def test_unknown_names_say_what_to_do(name, message):
    with pytest.raises(ModelNotFoundError) as caught:
        load(name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nearest_file_name(homes, folder):
    shutil.copytree(folder, homes / "photos-model")
    with pytest.raises(ModelNotFoundError, match="did you mean 'photos-model'"):
        load("./photo-model")


def test_folders_of_something_else(homes, folder):
    (homes / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no model here; expected model_index.json"):
        load("./empty")
    (homes / "many").mkdir()
    (homes / "many" / "x.safetensors").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"load one of them: x\.safetensors"):
        load("./many")
    shutil.copytree(folder, homes / "more" / "inner")
    with pytest.raises(CheckpointError, match="load one of them: inner"):
        load("./more")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dtype": "float8"}, "dtype 'float8' is unknown; did you mean 'float"),
        ({"prediction": "velocty"}, "did you mean 'velocity'?"),
        ({"device": "gpu"}, "device 'gpu' is unknown; one of cpu, cuda"),
        ({"device": "cuda:99"}, "device 'cuda:99' is not on this machine"),
    ],
)
def test_arguments_are_checked_before_anything_else(arguments, message):
    with pytest.raises(ConfigError) as caught:
        load("no such model", **arguments)
    assert message in str(caught.value)
    with pytest.raises(TypeError):
        load("x", dtypo="float32")


def test_remote_names():
    assert parse_remote("hf:a/b") == Remote("a/b")
    assert parse_remote("hf:a/b@fp16") == Remote("a/b", "fp16")
    assert parse_remote("hf:a/b@main:x/y z (1).ckpt") == Remote("a/b", "main", "x/y z (1).ckpt")
    assert str(parse_remote("hf:a/b@fp16:x.ckpt")) == "hf:a/b@fp16:x.ckpt"


@pytest.mark.parametrize(
    ("files", "variant", "best"),
    [
        (["a.bin", "a.safetensors", "a.fp16.safetensors"], "", ["a.safetensors"]),
        (["a.bin", "a.safetensors", "a.fp16.safetensors"], "fp16", ["a.fp16.safetensors"]),
        (["a.fp16.bin", "a.bin"], "fp16", ["a.fp16.bin"]),
        (["a.fp16.safetensors", "a.bin"], "", ["a.bin"]),
        (["a.fp16.safetensors"], "", ["a.fp16.safetensors"]),
        (["a.non_ema.safetensors", "a.bin"], "fp16", ["a.bin"]),
        (["a-00002-of-00002.bin", "a-00001-of-00002.bin"], "",
         ["a-00001-of-00002.bin", "a-00002-of-00002.bin"]),
        (["a.fp16-00001-of-00001.bin"], "fp16", ["a.fp16-00001-of-00001.bin"]),
        ([], "", []),
    ],
)  # fmt: skip
def test_best_set(files, variant, best):
    assert best_set(files, variant) == best


def test_incomplete_snapshots_are_not_taken(homes, folder):
    place = cache(homes, "owner/name", folder)
    assert is_complete(place)
    (place / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    assert not is_complete(place)
    with pytest.raises(ModelNotFoundError, match="HF_HUB_OFFLINE"):
        load("hf:owner/name")


OFFLINE = """
import sys
def hook(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind"):
        print("NETWORK", event, arguments)
        raise RuntimeError(event)
sys.addaudithook(hook)
import darkroom as dr
for name in sys.argv[1:]:
    print(name, dr.load(name).family)
"""


def test_no_socket_when_the_files_are_here(homes, folder):
    """In a process of its own, as an audit hook stays for ever; the network is allowed."""
    cache(homes, "owner/name", folder)
    cache(homes, "CompVis/stable-diffusion-v1-4", folder)
    single = save(load(folder), homes / "one.safetensors")
    names = [
        str(folder),
        str(single),
        "hf:owner/name",
        "owner/name",
        "CompVis/stable-diffusion-v1-4",
    ]
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    environment["PYTHONPATH"] = str(Path(locating.__file__).parents[2])
    run = [sys.executable, "-c", OFFLINE]
    done = subprocess.run(
        [*run, *names, "hf:nobody/nothing"], env=environment, capture_output=True, text=True
    )
    expected = [word for name in names for word in (name, "sd1")]
    # and the hook does see the network where a remote name is really missing
    assert done.stdout.split()[: len(expected) + 1] == [*expected, "NETWORK"], done.stderr


FETCH = """
import sys, darkroom as dr
print(dr.load(sys.argv[1]).source)
"""


def test_a_remote_name_is_fetched_once(homes, folder):
    """From a hub on this machine; afterwards it is opened without a request."""
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    environment = {k: v for k, v in os.environ.items() if k != "HF_HUB_OFFLINE"}
    environment["PYTHONPATH"] = str(Path(locating.__file__).parents[2])
    environment["HF_HUB_DISABLE_XET"] = "1"
    run = [sys.executable, "-c", FETCH, "hf:owner/name"]
    with serving(Hub(files | {"README.md": b"x", "v1-5.ckpt": b"not wanted"})) as hub:
        environment["HF_ENDPOINT"] = hub.url
        done = subprocess.run(run, env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == "hf:owner/name", done.stderr
        asked = [path for _, path, _ in hub.requests]
        assert any(path.endswith("unet/diffusion_pytorch_model.safetensors") for path in asked)
        assert not any(path.endswith("v1-5.ckpt") for path in asked)
        count = len(asked)
        done = subprocess.run(run, env=environment, capture_output=True, text=True)
        assert done.stdout.strip() == "hf:owner/name", done.stderr
        assert len(hub.requests) == count


def test_a_built_in_model_takes_parts_of_another(homes, folder, monkeypatch):
    monkeypatch.setattr(locating, "ASSETS", homes / "assets")
    whole, light = homes / "assets" / "emoji", homes / "assets" / "emoji-inpaint"
    shutil.copytree(folder, whole)
    shutil.copytree(folder, light)
    lent = ["text_encoder", "tokenizer", "vae"]
    index = json.loads((light / "model_index.json").read_text())

    def say(parts_of):
        text = json.dumps(index | {"_darkroom": {"parts_of": parts_of}})
        (light / "model_index.json").write_text(text)

    say({"emoji": lent})
    with pytest.raises(CheckpointError, match="text_encoder is here and in 'emoji'; remove one"):
        load("emoji-inpaint")
    for part in lent:
        shutil.rmtree(light / part)
    model = load("emoji-inpaint")
    assert model.name == "emoji-inpaint"
    parameters = zip(
        model.autoencoder.parameters(), load("emoji").autoencoder.parameters(), strict=True
    )
    assert all(torch.equal(a, b) for a, b in parameters)
    report = inspect(light)
    assert report.parameters == inspect(whole).parameters
    assert "vae is that of emoji" in report.notes
    assert is_complete(whole)
    for wrong, message in (
        ({"emojis": lent}, "its text_encoder is that of the built-in model 'emojis', which this"),
        ({"emoji": ["safety"]}, "its safety is that of the built-in model 'emoji'"),
        ({"../../emoji": ["vae"]}, "which this Darkroom lacks"),
        ({"emoji": "vae"}, "expected a built-in model and a list of its parts"),
        ("emoji", "expected a built-in model and a list of its parts"),
    ):
        say(wrong)
        with pytest.raises(CheckpointError, match=message):
            load("emoji-inpaint")
