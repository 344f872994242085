"""Hubs that lie: nothing is written outside of the cache, and nothing unchecked is kept."""

import hashlib
from pathlib import Path

import pytest
from hub_server import COMMIT, Hub, serving
from huggingface_hub import constants

from darkroom.errors import CheckpointError
from darkroom.weights import pull as pulling
from darkroom.weights.locate import parse_remote

FILES = {"model_index.json": b"{}", "unet/model.safetensors": b"weights" * 1000}
WEIGHTS = "unet/model.safetensors"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    return tmp_path


def point_at(hub: Hub, monkeypatch) -> None:
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def fetch(hub: Hub, monkeypatch) -> pulling.Plan:
    point_at(hub, monkeypatch)
    plan = pulling.plan(parse_remote("hf:owner/name"))
    for _ in pulling.pull(plan):
        pass
    return plan


def test_an_honest_hub(cache, monkeypatch):
    with serving(Hub(dict(FILES))) as hub:
        plan = fetch(hub, monkeypatch)
    assert not plan.unstated
    assert pulling.local(plan, WEIGHTS).read_bytes() == FILES[WEIGHTS]


@pytest.mark.parametrize(
    "etag",
    [
        "../../../../victim",
        "/etc/darkroom-victim",
        "..\\..\\victim",
        "..",
        "a/b",
        "0" * 64,  # of another file
        "x" * 300,
    ],
)
@pytest.mark.parametrize("name", [WEIGHTS, "model_index.json"])
def test_etags(cache, monkeypatch, etag, name):
    (cache / "victim").write_text("mine")
    if name != WEIGHTS and set(etag) == {"0"}:
        return  # small files are known by git's hash: their content is compared afterwards
    with (
        serving(Hub(dict(FILES), etags={name: etag})) as hub,
        pytest.raises(CheckpointError, match="is not the hash that it stated; nothing was written"),
    ):
        fetch(hub, monkeypatch)
    assert (cache / "victim").read_text() == "mine"
    outside = [p for p in cache.rglob("*") if p.is_file() and not p.is_relative_to(cache / "home")]
    assert outside == [cache / "victim"]


@pytest.mark.parametrize(
    "name", ["../x.json", "a/../../x.json", "/x.json", "a\\x.json", "a\nb.json", "c:x.json"]
)
def test_names(monkeypatch, name):
    with (
        serving(Hub({**FILES, name: b"{}"})) as hub,
        pytest.raises(CheckpointError, match="has a file of the name"),
    ):
        fetch(hub, monkeypatch)


@pytest.mark.parametrize("commit", ["../../x", "main", "", "c0ffee", COMMIT.upper()])
def test_commits(monkeypatch, commit):
    with (
        serving(Hub(dict(FILES), commit=commit)) as hub,
        pytest.raises(CheckpointError, match="names no commit"),
    ):
        fetch(hub, monkeypatch)


def test_a_file_longer_than_stated(monkeypatch):
    with (
        serving(Hub(dict(FILES), longer={WEIGHTS: 50_000_000})) as hub,
        pytest.raises(CheckpointError, match=r"is longer than the 7,000 bytes|does not have the"),
    ):
        fetch(hub, monkeypatch)


def test_a_hub_without_hashes(monkeypatch):
    with serving(Hub(dict(FILES), hashless=True)) as hub:
        plan = fetch(hub, monkeypatch)
    assert set(plan.unstated) == set(FILES)


def test_what_changed_after_it_was_checked(monkeypatch):
    with serving(Hub(dict(FILES))) as hub:
        point_at(hub, monkeypatch)
        plan = pulling.plan(parse_remote("hf:owner/name"))
        steps = pulling.pull(plan)
        for step in steps:
            if step.file == WEIGHTS and step.done == plan.size:
                first = pulling.local(plan, "model_index.json")
                first.resolve().write_bytes(b"[1, 2]")
                break
        with pytest.raises(CheckpointError, match="has changed since it was checked"):
            list(steps)
    assert hashlib.sha256(b"{}").hexdigest() != pulling._sha256(first)
