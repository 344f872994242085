"""Tensors read from files of every format equal what was written, and cost what they should."""

import argparse
import json
import pathlib
import pickle
import subprocess
import sys
import warnings
import zipfile
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cases import quick
from darkroom.errors import CheckpointError, UnsafeFileError
from darkroom.weights.files import Inert, read_header, read_object, read_sharded, read_tensors

DTYPES = (
    "float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64 complex128 "
    "float8_e4m3fn float8_e5m2 uint16 uint32 uint64"
).split()


def save(thing, path, legacy=False):
    torch.save(thing, path, _use_new_zipfile_serialization=not legacy)
    return path


def same(a, b):
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return torch.equal(a.contiguous().view(-1).view(torch.uint8),
                       b.contiguous().view(-1).view(torch.uint8))  # fmt: skip


def everything() -> OrderedDict:
    base = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    state = OrderedDict((name, base.to(getattr(torch, name))) for name in DTYPES)
    state |= {
        "transposed": base.t(),
        "window": base[1:4, 2:7:2],
        "column": base[:, 3],
        "repeated": torch.arange(3.0).expand(4, 3),
        "scalar": torch.tensor(3.5),
        "nothing": torch.zeros(0, 3),
        "parameter": nn.Parameter(base.clone()),
        "frozen": nn.Parameter(base.clone(), requires_grad=False),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }
    return state


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_files(tmp_path, legacy):
    state = everything()
    if legacy:
        for name in ("float8_e4m3fn", "float8_e5m2", "uint16", "uint32", "uint64"):
            del state[name]  # the old format keeps these as bytes of another kind
    path = save(state, tmp_path / "a.pt", legacy)
    read = read_tensors(path)
    assert list(read) == list(state)
    header = read_header(path)
    assert header.format == ("torch legacy" if legacy else "torch")
    for name, tensor in state.items():
        assert same(read[name], tensor.data), name
        assert read[name].stride() == tensor.stride(), name
        assert header.tensors[name].dtype == str(tensor.dtype).removeprefix("torch.")
        assert header.tensors[name].shape == tuple(tensor.shape)
        assert not read[name].requires_grad
    assert "float32" in read
    assert "absent" not in read
    with pytest.raises(KeyError):
        read["absent"]


@pytest.mark.parametrize("legacy", [False, True])
def test_shared_storages_stay_shared(tmp_path, legacy):
    base = torch.arange(12.0)
    path = save({"a": base, "b": base.view(3, 4)[1:], "c": base.clone()}, tmp_path / "a", legacy)
    read = read_tensors(path)
    a, b, c = read["a"], read["b"], read["c"]
    a[4] = 77
    assert b[0, 0] == 77
    assert c[4] == 4
    assert read["a"][4] == 77
    assert read_tensors(path)["a"][4] == 4, "writing into a tensor must not change the file"


def test_safetensors(tmp_path):
    state = {k: v.data.contiguous().clone() for k, v in everything().items()}
    del state["complex128"]  # not in the format
    save_file(state, tmp_path / "a.safetensors", metadata={"format": "pt", "ss_tag": "x"})
    read = read_tensors(tmp_path / "a.safetensors")
    assert set(read) == set(state)
    for name, tensor in state.items():
        assert same(read[name], tensor), name
    header = read_header(tmp_path / "a.safetensors")
    assert header.metadata == {"format": "pt", "ss_tag": "x"}
    assert header.size == (tmp_path / "a.safetensors").stat().st_size
    assert header.tensors["scalar"].count == 1
    assert header.tensors["nothing"].count == 0
    assert header.tensors["float16"].size == 96


@pytest.mark.parametrize("padding", range(9))
def test_safetensors_whose_data_are_not_aligned(tmp_path, padding):
    from safetensors.torch import save

    whole = save({"a": torch.arange(5.0), "b": torch.arange(3).half()})
    length = int.from_bytes(whole[:8], "little")
    text = whole[8 : 8 + length].rstrip() + b" " * padding
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + whole[8 + length :])
    read = read_tensors(path)
    assert read["a"].tolist() == [0, 1, 2, 3, 4]
    assert read["b"].tolist() == [0, 1, 2]
    assert read["a"].data_ptr() % 4 == 0


def test_release_gives_memory_back(tmp_path):
    from pathlib import Path

    def resident():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024

    path = tmp_path / "a.safetensors"
    save_file({"a": torch.full((16 << 20,), 3.0)}, path)
    read = read_tensors(path)
    before = resident()
    assert read["a"].sum() == 3 * (16 << 20)
    assert resident() - before > 48 << 20
    kept = read["a"]
    read.release()
    assert resident() - before < 16 << 20
    assert kept[-1] == 3


def test_suffix_does_not_matter(tmp_path):
    save({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    save_file({"a": torch.ones(2)}, tmp_path / "b.ckpt")
    assert read_header(tmp_path / "a.safetensors").format == "torch"
    assert read_header(tmp_path / "b.ckpt").format == "safetensors"


@pytest.mark.parametrize("key", ["state_dict", "model", "params_ema", "model_state_dict", "net"])
def test_the_model_is_found(tmp_path, key):
    state = {"a.weight": torch.ones(2)}
    junk = {"state": {0: {"exp_avg": torch.ones(9)}}, "param_groups": [{"lr": 0.1}]}
    save({"epoch": 3, key: state, "optimizer": junk, "lr": 0.5}, tmp_path / "a.ckpt")
    header = read_header(tmp_path / "a.ckpt")
    assert list(header.tensors) == ["a.weight"]
    assert header.root == key
    assert header.extras == {"epoch": 3, "lr": 0.5}


def test_optimizers_beside_unwrapped_models_are_left_out(tmp_path):
    save({"unet": {"w": torch.ones(2)}, "optimizer": {"m": torch.ones(2)}}, tmp_path / "a.ckpt")
    assert list(read_tensors(tmp_path / "a.ckpt")) == ["unet.w"]


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU())
        self.tied = self.layers[0]
        self.register_buffer("passing", torch.ones(3), persistent=False)
        self.register_buffer("kept", torch.arange(3))
        self.register_parameter("none", None)
        self.stride = torch.tensor([8.0, 16.0])
        self.detect = nn.Conv2d.forward  # FastSAM has such a thing: pickled through getattr
        self.options = argparse.Namespace(lr=0.1, path=pathlib.PurePosixPath("/x"))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("half", [False, True])
def test_whole_modules(tmp_path, legacy, half):
    """An object of unknown classes gives what its ``state_dict()`` would."""
    network = Network().half() if half else Network()
    content = {"model": network, "ema": None, "train_args": {"epochs": 3}, "date": "2023"}
    path = save(content, tmp_path / "FastSAM.pt", legacy)
    read = read_tensors(path)
    expected = network.state_dict()
    assert list(read) == list(expected)
    assert all(same(read[name], expected[name]) for name in expected)
    header = read_header(path)
    assert header.root == "model"
    assert header.skipped["builtins.getattr"] == 1
    assert header.skipped["torch.nn.modules.conv.Conv2d"] == 1
    assert header.extras["date"] == "2023"
    assert list(read_tensors(save({"model": None, "ema": network}, path, legacy))) == list(expected)


def test_whole_modules_in_a_process_that_lacks_their_classes(tmp_path):
    path = save({"model": Network()}, tmp_path / "a.pt")
    code = (
        "import sys; from darkroom.weights.files import read_tensors; "
        "print(len(read_tensors(sys.argv[1]))); sys.exit('argparse' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == str(len(Network().state_dict()))


def test_lightning_checkpoints(tmp_path):
    content = {
        "state_dict": {"model.diffusion_model.w": torch.ones(3)},
        "callbacks": {Network: {"best": torch.tensor(0.1)}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
        "lr_schedulers": [{"lr_lambdas": [None], "_last_lr": [np.float64(1e-4)]}],
        "hparams": argparse.Namespace(a=1),
        "global_step": 470_000,
        "loss": np.float32(0.25),
        "seen": {1, 2},
        "sizes": defaultdict(list, {"a": [1]}),
    }
    for legacy in (False, True):
        path = save(content, tmp_path / "a.ckpt", legacy)
        assert list(read_tensors(path)) == ["model.diffusion_model.w"]
        assert read_header(path).extras == {"global_step": 470_000, "loss": 0.25}
        whole = read_object(path)
        assert isinstance(whole["hparams"], Inert)
        assert whole["hparams"].name == "argparse.Namespace"
        assert whole["hparams"].state == {"a": 1}
        assert whole["lr_schedulers"][0]["_last_lr"] == [1e-4]
        assert whole["seen"] == {1, 2}
        assert whole["sizes"] == {"a": [1]}
        assert torch.equal(whole["optimizer_states"][0]["state"][0]["exp_avg"], torch.ones(3))


def test_torchscript(tmp_path):
    class Scripted(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 4)
            self.register_buffer("input_resolution", torch.tensor(224))

        def forward(self, x):
            return self.inner(x)

    module = Scripted().half()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(module), tmp_path / "ViT.pt")
    header = read_header(tmp_path / "ViT.pt")
    assert header.format == "torchscript"
    read = read_tensors(tmp_path / "ViT.pt")
    assert set(read) == set(module.state_dict())
    for name, tensor in module.state_dict().items():
        assert same(read[name], tensor)


def test_textual_inversions_and_hypernetworks(tmp_path):
    path = tmp_path / "a.pt"
    vectors = torch.randn(2, 768)
    parameters = nn.ParameterDict({"*": nn.Parameter(vectors)})
    for held in ({"*": vectors}, parameters, {"*": nn.Parameter(vectors)}):
        save({"string_to_token": {"*": 265}, "string_to_param": held, "name": "x"}, path)
        assert same(read_tensors(path)["string_to_param.*"], vectors)
    half = OrderedDict({"linear.0.weight": torch.randn(4, 2), "linear.0.bias": torch.randn(4)})
    save({768: (half, dict(half)), "step": 5, "layer_structure": [1.0, 2.0], "act": None}, path)
    read = read_tensors(path)
    assert same(read["768.0.linear.0.weight"], half["linear.0.weight"])
    assert same(read["768.1.linear.0.bias"], half["linear.0.bias"])
    whole = read_object(path)
    assert isinstance(whole[768], tuple)
    assert torch.equal(whole[768][1]["linear.0.bias"], half["linear.0.bias"])
    assert read_header(path).extras == {"step": 5, "layer_structure": [1.0, 2.0], "act": None}


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_numpy_arrays(tmp_path, protocol):
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        "c": np.zeros((0, 4), np.float64),
        "d": np.array([True, False]),
        "words": np.array(["x", "y"]),
        "things": np.array([None, {}], dtype=object),
        "f": np.array(3.5),
    }
    path = tmp_path / "a.pt"
    path.write_bytes(pickle.dumps(arrays, protocol))
    read = read_tensors(path)
    assert list(read) == ["a", "b", "c", "d", "f"]
    for name, tensor in read.items():
        assert np.array_equal(tensor.numpy(), arrays[name]), name
        assert tensor.numpy().dtype == arrays[name].dtype
    torch.save({"state_dict": arrays}, path, pickle_protocol=max(protocol, 2))
    assert list(read_tensors(path)) == ["a", "b", "c", "d", "f"]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol(tmp_path, protocol):
    content = {"a": torch.ones(2), "n": [1, -1, 255, 65_536, 2**40, -(2**50), 0.5, None, True],
               "t": ("x", "é", b"\0\xff", "\U0001f600"), "deep": {"k": {"k": []}}}  # fmt: skip
    path = tmp_path / "a.pt"
    torch.save(content, path, pickle_protocol=protocol)
    whole = read_object(path)
    assert whole["n"] == content["n"]
    assert whole["t"] == content["t"]
    assert whole["deep"] == content["deep"]


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_equal_pythons_reader(tmp_path, protocol):
    """Our machine and Python's agree on everything that is plain data."""
    from hypothesis import given, settings
    from hypothesis import strategies as st

    from darkroom.weights.readers.pickle_machine import Machine

    keys = st.text(max_size=8) | st.integers(-(2**59), 2**59) | st.booleans() | st.none()
    leaves = keys | st.floats(allow_nan=False) | st.binary(max_size=20) | st.integers(-99, 2**100)
    plain = st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(keys, inner, max_size=4)
            | st.tuples(inner, inner)
            | st.sets(keys, max_size=3)
        ),
        max_leaves=20,
    )

    @settings(max_examples=120, deadline=None, database=None)
    @given(plain)
    def check(value):
        data = pickle.dumps(value, protocol)
        assert Machine(data).load() == value

    check()


def test_compressed_archives(tmp_path):
    """Somebody repacked a checkpoint with compression: read, but not mapped."""
    save({"a": torch.arange(100.0), "b": torch.ones(7).half()}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as source,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for item in source.infolist():
            target.writestr(item.filename, source.read(item))
    read = read_tensors(tmp_path / "b.pt", verify=True)
    assert torch.equal(read["a"], torch.arange(100.0))
    assert torch.equal(read["b"], torch.ones(7).half())


def test_verify_finds_a_changed_byte(tmp_path):
    path = save({"a": torch.full((1000,), 7.0)}, tmp_path / "a.pt")
    data = bytearray(path.read_bytes())
    at = data.index(torch.full((100,), 7.0).numpy().tobytes())
    data[at + 40] ^= 1
    path.write_bytes(bytes(data))
    assert len(read_tensors(path)) == 1
    with pytest.raises(CheckpointError, match="checksum"):
        read_tensors(path, verify=True)


def shards(folder):
    save_file({"a": torch.ones(2)}, folder / "m-00001-of-00002.safetensors", {"k": "v"})
    save({"b": torch.zeros(3)}, folder / "m-00002-of-00002.bin")
    weights = {"a": "m-00001-of-00002.safetensors", "b": "m-00002-of-00002.bin"}
    index = folder / "m.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 20}, "weight_map": weights}))
    return index, weights


def test_sharded(tmp_path):
    index, weights = shards(tmp_path)
    for read in (read_sharded(index), read_tensors(index)):
        assert {name: t.tolist() for name, t in read.items()} == {"a": [1, 1], "b": [0, 0, 0]}
        assert len(read) == 2
        read.release()
    header = read_header(index)
    assert header.format == "sharded"
    assert set(header.tensors) == {"a", "b"}
    assert header.metadata == {"k": "v"}
    index.write_text(json.dumps({"weight_map": weights | {"c": weights["a"]}}))
    with pytest.raises(CheckpointError, match="promises 'c'"):
        read_sharded(index)
    (tmp_path / weights["b"]).unlink()
    with pytest.raises(CheckpointError, match="is not there"):
        read_header(index)


@pytest.mark.parametrize("name", ["../x.bin", "/x.bin", "a/x.bin", "a\\x.bin", "C:x.bin", "..", ""])
def test_shards_stay_in_their_folder(tmp_path, name):
    inner = tmp_path / "a"
    inner.mkdir()
    save({"a": torch.ones(1)}, tmp_path / "x.bin")
    save({"a": torch.ones(1)}, inner / "x.bin")
    (inner / "i.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError, match="outside its folder"):
        read_tensors(inner / "i.index.json")


def test_links_as_the_hub_cache_makes_them(tmp_path):
    blobs = tmp_path / "blobs"
    snapshot = tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    save_file({"a": torch.ones(2)}, blobs / "0123")
    (snapshot / "m.safetensors").symlink_to("../../blobs/0123")
    (snapshot / "i.index.json").write_text(json.dumps({"weight_map": {"a": "m.safetensors"}}))
    assert read_tensors(snapshot / "i.index.json")["a"].tolist() == [1, 1]


def test_an_attack_is_named(tmp_path):
    class Attack:
        def __reduce__(self):
            return (__import__("os").system, ("touch attacked",))

    path = save({"state_dict": {"a": torch.ones(2)}, "x": Attack()}, tmp_path / "a.ckpt")
    for read in (read_header, read_tensors, read_object):
        with pytest.raises(UnsafeFileError, match=r"a\.ckpt: wants to run '(posix|nt)\.system'"):
            read(path)


def test_numbers_stay_what_they_are(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(pickle.dumps({"a": np.ones(1), "n": np.int64(3), "x": np.float16(0.5)}))
    assert read_header(path).extras == {"n": 3, "x": 0.5}


MEMORY = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from darkroom.weights.files import read_header, read_tensors
def status(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
(Path(sys.argv[1]).parent / "warm").write_bytes(b"x" * 20)
try:
    read_header(Path(sys.argv[1]).parent / "warm")
except Exception:
    pass
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
total = 0.0
tensors = read_tensors(sys.argv[1])
kept = [tensors[name] for name in tensors]
opened = status("VmHWM") - before
total = sum(float(t.reshape(-1)[::512].float().sum()) for t in kept)
print(opened, status("VmHWM") - before)
"""


@pytest.mark.parametrize(
    "form", quick(["safetensors", "torch"], ["safetensors", "torch", "torch legacy"])
)
def test_memory(tmp_path, form):
    """Every tensor at once takes at most the file's size; before it is used, next to nothing."""
    size = 128 << 20
    state = {f"layer.{i}": torch.full((size // 64 // 4,), float(i)) for i in range(64)}
    path = tmp_path / "a"
    if form == "safetensors":
        save_file(state, path)
    else:
        save(state, path, legacy=form == "torch legacy")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)], capture_output=True, text=True, check=True
    )
    opened, used = map(int, done.stdout.split())
    print(f"{form}: opened {opened / size:.3f}, used {used / size:.3f} x")  # noqa: T201
    assert used < 1.1 * size
    if form != "torch legacy":  # its storages are not aligned, so they are copied
        assert opened < 0.05 * size
