"""Recipes on tar shards: streamed, resumed, on two processes, around damage, in little memory."""

import io
import json
import tarfile
import weakref

import pytest
import torch

import darkroom.recipes as recipes
from cases import quick
from darkroom.errors import DataError, DataWarning
from darkroom.recipes import autoencoder, latent_diffusion, run
from darkroom.recipes.clip import reading
from darkroom.training.data.pictures import Pictures
from darkroom.training.data.shards import Shards
from darkroom.vision.encoder import open_encoder
from recipes import test_clip, test_latent_recipes
from training.data.data_sets import add
from two_processes import run as on_two
from vision import things

STEPS = 8


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """Where the indices of shards are kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DARKROOM_HOME", str(tmp_path_factory.mktemp("home")))
        yield


def samples(repeats=3):
    """Name, JPEG and caption of coloured shapes."""
    for number in range(repeats):
        for colour in things.COLOURS:
            for shape in things.SHAPES:
                file = io.BytesIO()
                things.draw(colour, shape, number - 1).save(file, "JPEG", quality=95)
                yield f"{number}{colour}{shape}", file.getvalue(), f"a {colour} {shape}"


def write_shards(folder, count=3, repeats=3, damaged=(), rows=False):
    """By the package webdataset where there is one, else as it writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    found = list(samples(repeats))
    found = [(k, b"no picture" if i in damaged else d, t) for i, (k, d, t) in enumerate(found)]
    each = -(-len(found) // count)
    for n in range(count):
        part = found[n * each : (n + 1) * each]
        said = [
            {"__key__": key, "jpg": data} | ({"json": {"caption": t}} if rows else {"txt": t})
            for key, data, t in part
        ]
        path = folder / f"{n:05}.tar"
        try:
            from webdataset import TarWriter  # pyright: ignore[reportMissingImports]
        except ImportError:
            with tarfile.open(path, "w") as tar:
                for sample in said:
                    for kind in sample.keys() - {"__key__"}:
                        value = sample[kind]
                        value = json.dumps(value) if isinstance(value, dict) else value
                        value = value if isinstance(value, bytes) else value.encode()
                        add(tar, f"{sample['__key__']}.{kind}", value)
        else:
            with TarWriter(str(path)) as sink:
                for sample in said:
                    sink.write(sample)
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("sets") / "shards")


def recipe(folder, kind, data, **values):
    """A small recipe as a file; its run is ``folder / "run"``."""
    folder.mkdir(parents=True, exist_ok=True)
    text, given = {
        "autoencoder": (
            test_latent_recipes.AUTOENCODER.replace("recolour = 0.0", "recolour = 0.5"),
            {"weight": 0.0},
        ),
        "clip": (
            test_clip.CORRECT.replace("[model]\n", "held_out = 0.25\n[model]\ndropout = 0.0\n", 1),
            {"loss": "infonce", "accumulate": 1, "steps": STEPS},
        ),
        "latent-diffusion": (test_latent_recipes.DIFFUSION, {}),
    }[kind]
    text = text.format(data=data, out=folder / "run", **{**given, **values})
    text = text.replace("steps = 40\n", f"steps = {STEPS}\n").replace("first = 10", "first = 99")
    path = folder / "recipe.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def trained(shards, tmp_path_factory):
    folder = tmp_path_factory.mktemp("autoencoder")
    losses = [step.loss for step in run(recipe(folder, "autoencoder", shards))]
    return folder / "run", losses


def rows(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_an_autoencoder_streams_shards_without_being_asked(trained):
    folder, losses = trained
    assert losses[-1] < losses[0]
    assert "Reconstruction of 7 pictures that were kept aside" in (
        (folder / "report.html").read_text()
    )
    assert rows(folder)[-1]["psnr"] > 0


def test_latent_diffusion_learns_from_shards(trained, shards, tmp_path):
    path = recipe(
        tmp_path, "latent-diffusion", shards, autoencoder=trained[0] / "autoencoder.safetensors"
    )
    assert len(list(run(path))) == 5
    assert (tmp_path / "run" / "samples.png").is_file()


@pytest.mark.parametrize("with_rows", [False, True], ids=["txt", "json"])
def test_clip_learns_from_any_captioned_shards(tmp_path, with_rows):
    data = write_shards(tmp_path / "set", rows=with_rows)
    losses = [s.loss for s in run(recipe(tmp_path, "clip", data, steps=60))]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
    facts = json.loads((tmp_path / "run" / "recall.json").read_text())
    assert (facts["split"], facts["images"]) == ("kept aside", 7)
    assert (tmp_path / "run" / "matches.png").is_file()
    assert open_encoder(tmp_path / "run" / "model", "cpu").size == 16


def folders(tmp_path, kind):
    """The same pictures as an imagefolder or in kohya's folders."""
    data = tmp_path / kind
    place = data / "2_shape" if kind == "kohya" else data
    place.mkdir(parents=True)
    lines = []
    for key, picture, text in samples(2):
        (place / f"{key}.jpg").write_bytes(picture)
        lines.append({"file_name": f"{key}.jpg", "text": text})
        if kind == "kohya":
            (place / f"{key}.txt").write_text(text)
    if kind == "imagefolder":
        (data / "metadata.jsonl").write_text("".join(json.dumps(li) + "\n" for li in lines))
    return data


@pytest.mark.parametrize("kind", ["imagefolder", "kohya"])
def test_clip_learns_from_folders_in_memory_or_not(tmp_path, kind):
    data = folders(tmp_path, kind)
    for streamed in ("stream=true", "stream=false"):
        path = recipe(tmp_path / streamed, "clip", data)
        losses = [s.loss for s in recipes.run(path, None, [streamed])]
        assert losses[-1] < losses[0]


@pytest.mark.parametrize("kind", ["autoencoder", "clip"])
def test_a_streamed_run_resumes_bit_for_bit_around_damage(tmp_path, kind):
    data = write_shards(tmp_path / "set", damaged=(2, 11, 20))
    with pytest.warns(DataWarning, match="of 27 pictures cannot be read"):
        whole = [s.loss for s in run(recipe(tmp_path / "whole", kind, data))]
    parts = []
    path = recipe(tmp_path / "parts", kind, data)
    with pytest.warns(DataWarning):
        steps = run(path)
        for step in steps:
            parts.append(step.loss)
            if step.index == 3:
                break
        steps.close()
        parts += [step.loss for step in run(path)]
    assert parts == whole
    said = [row["said"] for row in rows(tmp_path / "whole" / "run") if "said" in row]
    assert 1 <= len(said) <= 2
    assert said[-1].endswith(f"`darkroom data check {data}` lists all")
    page = (tmp_path / "whole" / "run" / "report.html").read_text()
    assert all(sentence.split(";")[0] in page for sentence in said)


def test_damage_is_said_before_a_run_from_memory_and_in_latent_diffusion(trained, tmp_path):
    data = folders(tmp_path, "imagefolder")
    for name in ("0redcross.jpg", "1bluecross.jpg"):
        (data / name).write_bytes(b"no picture")
    for kind in ("autoencoder", "latent-diffusion", "clip"):
        place = tmp_path / kind
        path = recipe(place, kind, data, autoencoder=trained[0] / "autoencoder.safetensors")
        with pytest.warns(DataWarning, match="2 of 18 pictures cannot be read and are left out"):
            list(run(path))
        assert [row["step"] for row in rows(place / "run") if "said" in row] == [0]
    for path in sorted(data.glob("*.jpg"))[:16]:
        path.write_bytes(b"no picture")
    for kind in ("autoencoder", "latent-diffusion", "clip"):
        path = recipe(
            tmp_path / "none" / kind, kind, data,
            autoencoder=trained[0] / "autoencoder.safetensors",
        )  # fmt: skip
        with pytest.raises(DataError, match=r"of 18 pictures cannot be read, such as"):
            list(run(path))


def on_each(paths):
    told = []
    for path in paths:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DARKROOM_HOME", str(path.parent / "home"))
            told.append([(step.loss, step.gradient_norm) for step in run(path)])
    return told


@pytest.mark.slow
def test_two_processes_stream_what_one_does(tmp_path):
    data = write_shards(tmp_path / "set", damaged=(2, 11, 20))
    one, two = (
        [recipe(tmp_path / count / kind, kind, data) for kind in ("autoencoder", "clip")]
        for count in ("one", "two")
    )
    with pytest.warns(DataWarning):
        alone = on_each(one)
    for told in on_two(on_each, two):
        for expected, values in zip(alone, told, strict=True):
            for (loss, norm), (its_loss, its_norm) in zip(values, expected, strict=True):
                assert loss == pytest.approx(its_loss, rel=1e-4)
                assert norm == pytest.approx(its_norm, rel=1e-2)
    for path, other in zip(one, two, strict=True):  # the first process speaks for both
        said, theirs = (
            [row["said"] for row in rows(at.parent / "run") if "said" in row][-1]
            for at in (path, other)
        )
        words = ("so far, ", "; `darkroom")
        names, others = (
            sorted(t.removeprefix(words[0]).split(words[1])[0].split("out: ")[1].split(", "))
            for t in (said, theirs)
        )
        assert names == others


class Watched:
    """Counts pictures that a set has read and that are still in memory."""

    def __init__(self, monkeypatch):
        self.now = self.most = self.read = 0
        for name in ("readable", "readable_or_next"):
            monkeypatch.setattr(Pictures, name, self.counting(getattr(Pictures, name)))

    def counting(self, function):
        def counted(*arguments, **named):
            pixels, which = function(*arguments, **named)
            count = len(pixels)
            self.now, self.read = self.now + count, self.read + count
            self.most = max(self.most, self.now)
            weakref.finalize(pixels, self.gone, count)
            return pixels, which

        return counted

    def gone(self, count):
        self.now -= count


@pytest.mark.parametrize(
    "kind", quick(["latent-diffusion"], ["autoencoder", "latent-diffusion", "clip"])
)
def test_memory_does_not_grow_with_the_set(trained, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(autoencoder, "MEASURED", 6)
    monkeypatch.setattr(autoencoder, "ENCODED", 12)
    monkeypatch.setattr(reading, "MEASURED", 6)
    monkeypatch.setattr(latent_diffusion, "PART", 16)
    most = []
    for repeats in (3, 12):
        data = write_shards(tmp_path / str(repeats) / "set", repeats=repeats)
        path = recipe(
            tmp_path / str(repeats), kind, data,
            autoencoder=trained[0] / "autoencoder.safetensors",
        )  # fmt: skip
        with monkeypatch.context() as patch:
            watched = Watched(patch)
            list(run(path))
        most.append(watched.most)
        assert watched.read >= 9 * repeats * (kind == "latent-diffusion")
    # a part or batch in use, one that takes its place, two ahead, and what is measured on
    assert max(most) <= 5 * 16
    assert max(most) < 9 * 12
    assert abs(most[1] - most[0]) <= 16


def test_a_plan_of_streamed_data(shards, tmp_path):
    plan = recipes.plan(recipe(tmp_path, "autoencoder", shards))
    (data,) = plan.data
    assert (data.kind, data.items, data.captioned) == ("webdataset", 27, True)
    (stage,) = plan.stages
    assert stage.data == (7 + 3 * 8) * 4 * 16 * 16
    assert plan.notes == []
    data = folders(tmp_path, "imagefolder")
    (data / "0redcross.jpg").write_bytes(b"no picture")
    plan = recipes.plan(recipe(tmp_path, "autoencoder", data))
    assert "1 of 18 pictures cannot be read and is left out: 0redcross.jpg" in plan.notes[0]
    assert plan.stages[0].data == 17 * 4 * 16 * 16


def test_cut_outs_keep_their_transparency_in_a_stream(captioned, tmp_path):
    path = recipe(tmp_path, "autoencoder", captioned)
    found = {}

    def loss_of(streamed):
        with pytest.MonkeyPatch.context() as patch:
            seen = []
            was = autoencoder.augmented
            patch.setattr(
                autoencoder, "augmented", lambda p, *rest: seen.append(p) or was(p, *rest)
            )
            list(recipes.run(path, {"out": tmp_path / streamed}, [f"stream={streamed}"]))
        return torch.cat(seen)

    for streamed in ("true", "false"):
        pixels = loss_of(streamed)
        found[streamed] = {p.numpy().tobytes() for p in pixels}
        assert pixels[:, 3].amin((1, 2)).eq(0).all()
    assert found["true"] == found["false"]


def test_shards_that_are_gone_end_it(tmp_path):
    data = write_shards(tmp_path / "set")
    found = Shards(sorted(data.glob("*.tar")), cache=None)
    (data / "00001.tar").unlink()
    with pytest.raises(DataError, match=r"00001\.tar: no such file"):
        found.readable(range(27), 8)
