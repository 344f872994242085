"""FastSAM's files: pickled modules, state dictionaries, and what Darkroom writes."""

import json
import logging
import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import darkroom as dr
from darkroom.errors import CheckpointError, LayoutError
from darkroom.models.fastsam.network import FASTSAM_S, FASTSAM_X, FastSAM, FastSAMConfig
from darkroom.weights.catalog import by_file
from darkroom.weights.files import read_header
from darkroom.weights.inspect import inspect
from darkroom.weights.inspect.layers import networks_called, networks_of
from darkroom.weights.layouts.fastsam.original import ORIGINAL, sizes

TINY = FastSAMConfig(
    channels=(8, 8, 16, 16, 32),
    pairs=(1, 2, 1, 1),
    bins=4,
    coefficients=5,
    box_channels=8,
    class_channels=8,
    coefficient_channels=8,
    prototype_channels=8,
)
FAMILY = "ultralytics.nn.tasks"  # where the pickled class says that it comes from


def network(seed: int = 0) -> FastSAM:
    torch.manual_seed(seed)
    model = FastSAM(TINY).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.get_buffer("running_mean").normal_()
    return model


def published(model: FastSAM) -> dict[str, Tensor]:
    return ORIGINAL.revert(model.state_dict(), model.config)


def pickled(path, **entries: FastSAM | None):
    """A file as Ultralytics writes it: whole modules, of classes that are not there to read it."""
    family = ModuleType(FAMILY)
    above = ["ultralytics", "ultralytics.nn"]
    kinds = {}
    for name in ("SegmentationModel", "Conv"):
        kinds[name] = type(name, (nn.Module,), {"__module__": FAMILY, "__qualname__": name})
        setattr(family, name, kinds[name])

    def module(model: FastSAM) -> nn.Module:
        root = kinds["SegmentationModel"]()
        for name, tensor in published(model).items():
            *parents, leaf = name.split(".")
            inside = root
            for parent in parents:
                if parent not in inside._modules:
                    inside.add_module(parent, kinds["Conv"]())
                inside = inside.get_submodule(parent)
            inside.register_buffer(leaf, tensor)
        root.names, root.stride = {0: "object"}, torch.tensor([8.0, 16, 32])
        root.register_buffer("passing", torch.ones(3), persistent=False)
        return root.half()

    made = {name: None if model is None else module(model) for name, model in entries.items()}
    sys.modules |= {FAMILY: family} | {name: ModuleType(name) for name in above}
    try:
        torch.save({**made, "train_args": {"imgsz": 1024}, "version": "8.0.120"}, path)
    finally:
        for name in (FAMILY, *above):
            del sys.modules[name]
    return path


def same(a: FastSAM, b: FastSAM, half: bool = False) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(
        torch.equal(t.half().float() if half and t.is_floating_point() else t, theirs[name])
        for name, t in ours.items()
    )


@pytest.mark.parametrize(("config", "count"), [(FASTSAM_S, 417), (FASTSAM_X, 657)])
def test_published_names_and_back(config, count):
    with torch.device("meta"):
        model = FastSAM(config)
    theirs = published(model)
    assert len(theirs) == count
    assert all(name.startswith("model.") for name in theirs)
    assert theirs["model.22.dfl.conv.weight"].shape == (1, 16, 1, 1)
    assert theirs["model.4.m.0.cv1.bn.running_var"].ndim == 1
    assert sizes(theirs) == config
    assert ORIGINAL.convert(theirs, config).keys() == model.state_dict().keys()


def test_a_pickled_module_is_read_without_its_classes(tmp_path, caplog):
    model = network()
    path = pickled(tmp_path / "FastSAM-s.pt", model=model, ema=None)
    with caplog.at_level(logging.WARNING):
        read = dr.load(path, device="cpu")
    assert isinstance(read, FastSAM)
    assert read.config == TINY
    assert same(model, read, half=True)
    assert FAMILY not in sys.modules
    assert [record.message for record in caplog.records] == [
        "FastSAM-s.pt: these weights are licensed AGPL-3.0 (Darkroom is not); mind its terms "
        "where you pass them on, or serve what uses them"
    ]


def test_the_averaged_module_comes_first_unless_asked(tmp_path):
    plain, averaged = network(0), network(1)
    path = pickled(tmp_path / "last.pt", model=plain, ema=averaged)
    assert read_header(path).root == "ema"
    assert same(averaged, dr.load(path, device="cpu"), half=True)
    assert same(plain, dr.load(path, device="cpu", ema=False), half=True)
    path = pickled(tmp_path / "last.pt", model=None, ema=averaged)
    assert same(averaged, dr.load(path, device="cpu"), half=True)


@pytest.mark.parametrize("prefix", ["", "module.", "model."])
def test_state_dictionaries(tmp_path, prefix):
    model = network()
    state = {f"{prefix}{name}": tensor for name, tensor in published(model).items()}
    path = tmp_path / "weights.pt"
    torch.save(state, path)
    assert same(model, dr.load(path, device="cpu"))


@pytest.mark.parametrize("name", ["folder", "folder/model.safetensors", "one.safetensors"])
def test_what_is_saved_opens_again(tmp_path, name):
    model = network()
    dr.save(model, tmp_path / name.partition("/")[0])
    read = dr.load(tmp_path / name, device="cpu")
    assert read.config == TINY
    assert same(model, read)


def test_a_folder_says_its_sizes(tmp_path):
    dr.save(network(), tmp_path / "mine")
    said = json.loads((tmp_path / "mine" / "config.json").read_text())
    assert said["_class_name"] == "darkroom.FastSAM"
    assert said["channels"] == [8, 8, 16, 16, 32]
    report = inspect(tmp_path / "mine")
    assert (report.kind, report.layout, report.licence) == ("FastSAM", "Darkroom folder", "")


def test_other_networks_are_refused_in_one_line(tmp_path):
    state = published(network())
    missing = {name: t for name, t in state.items() if name != "model.9.cv1.bn.weight"}
    more = {**state, "model.23.cv1.conv.weight": torch.ones(1)}
    wrong = {**state, "model.22.cv2.0.2.weight": torch.ones(17, 8, 1, 1)}
    for odd, message in ((missing, "model|pool"), (more, "model.23"), (wrong, "head.box.0.2")):
        torch.save(odd, tmp_path / "odd.pt")
        with pytest.raises((LayoutError, CheckpointError), match=message) as caught:
            dr.load(tmp_path / "odd.pt", device="cpu")
        assert "\n" not in str(caught.value)


def test_the_catalogue_knows_the_published_files():
    for stem in ("FastSAM", "FastSAM-x", "FastSAM-s"):
        known = by_file(stem)
        assert known is not None
        assert known.licence == "AGPL-3.0"


def test_layers_are_told_by_name_and_from_a_file(tmp_path):
    (network_s,) = networks_called("fastsam-s")
    trace = network_s.trace(1)
    assert trace[""].outputs[-1].shape == (1, 32, 256, 256)
    path = pickled(tmp_path / "FastSAM.pt", model=network())
    (opened,) = networks_of(path, (64, 96))
    assert opened.trace()[""].outputs[-1].shape == (1, 5, 16, 24)
