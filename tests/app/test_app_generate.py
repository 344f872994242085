"""``darkroom generate`` on a tiny real model, in this process and as a process that is killed."""

import io
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from app_commands import command, environment
from PIL import Image

from cases import quick
from darkroom.generation.metadata import read_params

FAST = ("--size", "64x64", "--steps", "3")


def opened(path: Path | str) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


def pixels(path: Path | str) -> bytes:
    return opened(path).tobytes()


def test_pictures_are_drawn_named_and_reported(darkroom, model_folder):
    ended = darkroom(
        "generate", "A red Cat!", "--model", model_folder, *FAST, "--seed", "7", "--count", "2"
    )
    assert ended.code == 0
    assert ended.out.splitlines() == [
        "pictures/00001-a-red-cat-7.png",
        "pictures/00002-a-red-cat-8.png",
    ]
    assert "drawing: 100 %" in ended.err
    assert "2 of 2 pictures in" in ended.err
    params = read_params("pictures/00002-a-red-cat-8.png")
    assert (params.prompt, params.seed, params.size) == ("A red Cat!", 8, (64, 64))


def test_a_picture_of_a_batch_is_the_picture_of_its_seed(darkroom, model_folder):
    line = ("generate", "a cat", "--model", model_folder, *FAST)
    darkroom(*line, "--seed", "3", "--count", "3", "--out", "all")
    darkroom(*line, "--seed", "5", "--out", "one.png")
    together, alone = (opened(p) for p in ("all/00003-a-cat-5.png", "one.png"))
    apart = max(abs(a - b) for a, b in zip(together.tobytes(), alone.tobytes(), strict=True))
    assert apart <= 1


def test_json_is_one_object(darkroom, model_folder):
    ended = darkroom("generate", "a cat", "--model", model_folder, *FAST, "--seed", "1", "--json")
    assert ended.code == 0
    (picture,) = ended.answer["pictures"]
    assert Path(picture["path"]).is_file()
    assert picture["seed"] == 1
    assert picture["params"]["steps"] == 3
    assert ended.answer["seconds"] > 0


def test_every_flag_reaches_the_picture(darkroom, model_folder):
    ended = darkroom(
        *("generate", "a cat", "--model", model_folder, "--size", "96x64", "--steps", "4"),
        *("--negative", "blurry", "--guidance", "5.5", "--sampler", "euler_ancestral"),
        *("--spacing", "karras", "--seed", "12", "--dtype", "float32", "--device", "cpu"),
        *("--clip-skip", "1", "--out", "cat.webp"),
    )
    assert ended.code == 0
    assert opened("cat.webp").size == (96, 64)
    params = read_params("cat.webp")
    assert params.negative == "blurry"
    assert params.guidance == 5.5
    assert (params.sampler, params.spacing, params.steps) == ("euler_ancestral", "karras", 4)


def test_clip_skip_changes_the_picture(darkroom, model_folder):
    line = ("generate", "a cat", "--model", model_folder, *FAST, "--seed", "1", "--guidance", "7")
    darkroom(*line, "--out", "a.png")
    darkroom(*line, "--clip-skip", "2", "--out", "b.png")
    assert pixels("a.png") != pixels("b.png")
    assert "Clip skip: 2" in opened("b.png").info["parameters"]
    ended = darkroom("generate", "--from", "b.png", "--model", model_folder, "--out", "again.png")
    assert ended.code == 0, ended.err
    assert pixels("b.png") == pixels("again.png")


def test_prompts_make_a_batch(darkroom, model_folder):
    Path("ideas.txt").write_text("a red cat\n\nein Bär\n", "utf-8")
    ended = darkroom(
        *("generate", "--prompts", "ideas.txt", "--model", model_folder, *FAST),
        *("--seed", "4", "--count", "2", "--json"),
    )
    pictures = ended.answer["pictures"]
    assert [(p["params"]["prompt"], p["seed"]) for p in pictures] == [
        ("a red cat", 4),
        ("a red cat", 5),
        ("ein Bär", 4),
        ("ein Bär", 5),
    ]
    assert len({p["path"] for p in pictures}) == 4


def test_from_redraws_bit_for_bit(darkroom, model_folder):
    darkroom(
        *("generate", "a [red|blue] (cat:1.2)", "--model", model_folder, *FAST),
        *("--seed", "3", "--count", "3", "--negative", "dull", "--out", "first"),
    )
    drawn = sorted(Path("first").iterdir())[1]
    ended = darkroom("generate", "--from", drawn, "--model", model_folder, "--out", "again.png")
    assert ended.code == 0, ended.err
    assert pixels(drawn) == pixels("again.png")
    assert read_params("again.png") == read_params(drawn)


def test_from_gives_way_to_flags(darkroom, model_folder):
    line = ("generate", "a cat", "--model", model_folder, *FAST, "--seed", "3")
    darkroom(*line, "--sampler", "ddim", "--out", "first.png")
    ended = darkroom(
        *("generate", "a dog", "--from", "first.png", "--model", model_folder),
        *("--seed", "9", "--count", "2", "--steps", "2", "--json"),
    )
    assert ended.code == 0, ended.error
    found = [p["params"] for p in ended.answer["pictures"]]
    assert [p["seeds"][p["index"]] for p in found] == [9, 10]
    assert {(p["prompt"], p["sampler"], p["steps"]) for p in found} == {("a dog", "ddim", 2)}


def test_from_a_picture_of_a_model_that_is_not_here(darkroom, model_folder):
    darkroom("generate", "a cat", "--model", model_folder, *FAST, "--out", "first.png")
    ended = darkroom("generate", "--from", "first.png")
    assert ended.code == 3
    assert "--model" in ended.error


def test_from_a_picture_without_parameters(darkroom):
    Image.new("RGB", (8, 8)).save("plain.png")
    ended = darkroom("generate", "--from", "plain.png")
    assert ended.code == 2
    assert "no generation parameters" in ended.error


def test_an_image_to_start_from(darkroom, model_folder):
    Image.new("RGB", (64, 64), "orange").save("photo.png")
    line = ("generate", "a cat", "--model", model_folder, "--steps", "4", "--seed", "1")
    ended = darkroom(*line, "--image", "photo.png", "--strength", "0.5", "--out", "cat.png")
    assert ended.code == 0, ended.err
    params = read_params("cat.png")
    assert params.image.strength == 0.5
    assert params.size == (64, 64)
    refused = darkroom("generate", "--from", "cat.png", "--model", model_folder)
    assert refused.code == 2
    assert "--image" in refused.error
    again = darkroom(
        *("generate", "--from", "cat.png", "--model", model_folder),
        *("--image", "photo.png", "--out", "again.png"),
    )
    assert again.code == 0, again.err
    assert pixels("cat.png") == pixels("again.png")


def test_no_mark_leaves_the_note_out(darkroom, model_folder):
    line = ("generate", "a cat", "--model", model_folder, *FAST, "--seed", "1")
    darkroom(*line, "--out", "marked.png")
    darkroom(*line, "--no-mark", "--out", "bare.png")
    assert b"trainedAlgorithmicMedia" in Path("marked.png").read_bytes()
    assert b"trainedAlgorithmicMedia" not in Path("bare.png").read_bytes()


@pytest.fixture
def loras(home) -> Path:
    """A model folder with two LoRAs: one for the small model, one for SDXL."""
    import torch
    from safetensors.torch import save_file

    folder = home / "models" / "loras"
    folder.mkdir(parents=True)
    g = torch.Generator().manual_seed(1)
    key = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_v"
    tensors = {
        f"{key}.lora_down.weight": torch.randn((2, 32), generator=g),
        f"{key}.lora_up.weight": torch.randn((32, 2), generator=g),
    }
    save_file(tensors, folder / "film.safetensors")
    key = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k"
    tensors = {
        f"{key}.lora_down.weight": torch.zeros(2, 2048),
        f"{key}.lora_up.weight": torch.zeros(640, 2),
    }
    save_file(tensors, folder / "for xl.safetensors")
    return folder


def test_loras_by_flag_and_by_tag(darkroom, model_folder, loras):
    line = ("generate", "--model", model_folder, *FAST, "--seed", "1")
    for ended in (
        darkroom(*line, "a cat", "--out", "plain.png"),
        darkroom(*line, "a cat", "--lora", "film:0.8", "--out", "flag.png"),
        darkroom(*line, "a cat<lora:film:0.8>", "--out", "tag.png"),
        darkroom(*line, "a cat", "--lora", loras / "film.safetensors:0.8", "--out", "path.png"),
        darkroom(
            *line,
            "a cat",
            "--lora",
            "film:1",
            "--lora",
            "film:1:-.2",
            "--out",
            "twice.png",
            "--json",
        ),
        darkroom("generate", "--model", model_folder, "--from", "flag.png", "--out", "again.png"),
        darkroom(
            "generate", "--model", model_folder, "--from", "tag.png", "--out", "tag again.png"
        ),
    ):
        assert ended.code == 0, ended.err
    assert pixels("plain.png") != pixels("flag.png")
    names = ("tag", "path", "again", "tag again")
    assert {pixels(f"{name}.png") for name in names} == {pixels("flag.png")}
    used = read_params("path.png").loras
    assert [(lora.name, lora.weight, lora.tagged) for lora in used] == [("film", 0.8, False)]
    assert [lora.weight for lora in read_params("twice.png").loras] == [1.0, -0.2]
    apart = [abs(a - b) for a, b in zip(pixels("twice.png"), pixels("flag.png"), strict=True)]
    assert max(apart) <= 1

    other = darkroom(
        "generate",
        "--model",
        model_folder,
        "--from",
        "flag.png",
        "--lora",
        "film:0",
        "--out",
        "0.png",
    )
    assert other.code == 0, other.err
    assert pixels("0.png") == pixels("plain.png")


def test_a_lora_that_cannot_be_used(darkroom, model_folder, loras):
    line = ("generate", "--model", model_folder, *FAST)
    for words in (("a cat <lora:flim:0.8>",), ("a cat", "--lora", "flim:0.8")):
        ended = darkroom(*line, *words)
        assert ended.code == 3
        assert "no LoRA is called 'flim'; did you mean 'film'?" in ended.error
    ended = darkroom(*line, "a cat", "--lora", "for xl:1")
    assert ended.code == 3
    assert "for xl.safetensors: this is a LoRA for SDXL" in ended.error
    assert darkroom(*line, "a cat", "--lora", "film:much").code == 2
    assert darkroom(*line, "a cat", "--lora", model_folder).code == 3
    assert darkroom(*line, "a cat", "--seed", "1", "--lora", "film", "--out", "a.png").code == 0
    (loras / "film.safetensors").rename(loras / "film2.safetensors")
    ended = darkroom("generate", "--model", model_folder, "--from", "a.png")
    assert ended.code == 3
    assert "--from: the picture was drawn with the LoRA 'film'" in ended.error
    assert "film2" in ended.error
    assert not Path("pictures").exists() or not os.listdir("pictures")


def test_a_device_that_is_not_there(darkroom, model_folder):
    ended = darkroom("generate", "a cat", "--model", model_folder, *FAST, "--device", "cuda:63")
    assert ended.code == 2
    assert "cuda:63" in ended.error


def test_a_model_that_draws_nothing(darkroom, model_folder):
    ended = darkroom("generate", "a cat", "--model", model_folder / "vae")
    assert ended.code == 3
    assert "not a text-to-image model" in ended.error


def test_a_picture_that_does_not_fit_into_memory(darkroom, model_folder, monkeypatch):
    from darkroom.generation import memory

    monkeypatch.setattr(memory, "available", lambda device: 1000)  # a machine with 1 kB left
    ended = darkroom("generate", "a cat", "--model", model_folder, *FAST, "--count", "3")
    assert ended.code == 4
    assert "0.00 GB are free" in ended.error


def test_a_batch_that_does_not_fit_is_halved(darkroom, model_folder, monkeypatch):
    from darkroom.generation import memory

    free = [1000]  # at first; then there is enough
    monkeypatch.setattr(memory, "available", lambda device: free.pop() if free else 10**12)
    line = ("generate", "a cat", "--model", model_folder, *FAST, "--seed", "1", "--count", "3")
    pictures = darkroom(*line, "--json").answer["pictures"]
    assert [picture["params"]["seeds"] for picture in pictures] == [[1], [2, 3], [2, 3]]
    assert [picture["seed"] for picture in pictures] == [1, 2, 3]


def test_a_folder_that_cannot_be_written(darkroom, model_folder):
    Path("taken").write_text("a file, no folder")
    ended = darkroom("generate", "a cat", "--model", model_folder, *FAST, "--out", "taken")
    assert ended.code == 3
    assert "taken" in ended.error


def test_stdin_to_stdout(model_folder):
    done = subprocess.run(
        command("generate", "-", "--model", model_folder, *FAST, "--seed", "1", "--out", "-"),
        input=b"a cat\n",
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    picture = Image.open(io.BytesIO(done.stdout))
    picture.load()
    assert read_params(done.stdout).prompt == "a cat"


@pytest.mark.parametrize(
    ("number", "code"),
    quick([(signal.SIGTERM, 5)], [(signal.SIGINT, 130), (signal.SIGTERM, 5)]),
)
def test_a_signal_leaves_complete_files_only(model_folder, number, code):
    """Three signals at different moments of a long run; every file that is there opens."""
    line = command(
        *("generate", "a cat", "--model", model_folder, "--size", "136x136", "--steps", "2"),
        *("--seed", "1", "--count", "5000", "--json"),
    )
    process = subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(OMP_NUM_THREADS="1")
    )
    folder, waited = Path("pictures"), time.monotonic() + 120
    while not (folder.is_dir() and len(os.listdir(folder)) >= 3):
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < waited
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err.decode()
    names = sorted(os.listdir(folder))
    assert all(re.fullmatch(r"\d{5}-a-cat-\d+\.png", name) for name in names), names
    for name in names:
        opened(folder / name)
    answer = json.loads(out)
    assert answer["exit_code"] == code
    assert len(answer["pictures"]) >= len(names) - 1
    assert b"Traceback" not in err
    assert b"of 5000 pictures" in err


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_a_signal_while_loading(model_folder):
    process = subprocess.Popen(
        command("generate", "a cat", "--model", model_folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    maps = Path(f"/proc/{process.pid}/maps")
    while "libtorch" not in maps.read_text():  # until torch is being imported
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err.decode()
    assert b"Traceback" not in err


def test_textual_inversions_and_hypernetworks(darkroom, model_folder, home, tmp_path):
    import torch

    from darkroom.adapters.hypernetwork import Hypernetwork
    from darkroom.weights.adapters.saving import save_embedding, save_hypernetwork

    (home / "models").mkdir(parents=True)
    torch.manual_seed(0)
    save_embedding(home / "models/foxy.pt", torch.randn(1, 24))
    thing = save_embedding(tmp_path / "thing.safetensors", torch.randn(2, 24))
    pair = [{f"linear.{n}.{leaf}": torch.randn((48, 24) if leaf == "weight" and n == 0 else
             (24, 48) if leaf == "weight" else 24 * (2 - n)) for n in (0, 1)
             for leaf in ("weight", "bias")} for _ in "kv"]  # fmt: skip
    save_hypernetwork(home / "models/style.pt", Hypernetwork({24: pair}))
    line = ("generate", "--model", model_folder, "--seed", "1", "--steps", "2")
    ended = darkroom(*line, "a foxy thing", "--embedding", thing, "--hypernetwork", "style:0.3",
                     "--out", "a.png")  # fmt: skip
    assert ended.code == 0, ended.error
    params = read_params("a.png")
    assert [used.name for used in params.embeddings] == ["foxy", "thing"]
    assert [(used.name, used.weight) for used in params.hypernetworks] == [("style", 0.3)]
    ended = darkroom("generate", "--model", model_folder, "--from", "a.png", "--out", "b.png")
    assert ended.code == 3
    assert "no textual inversion is called 'thing'" in ended.error
    thing.rename(home / "models/thing.safetensors")
    ended = darkroom("generate", "--model", model_folder, "--from", "a.png", "--out", "b.png")
    assert ended.code == 0, ended.error
    pixels = [Image.open(name).tobytes() for name in ("a.png", "b.png")]
    assert pixels[0] == pixels[1]
    ended = darkroom(*line, "a foxy <hypernet:stile:1>")
    assert ended.code == 3
    assert "no hypernetwork is called 'stile'; did you mean 'style'?" in ended.error
    assert darkroom(*line, "a", "--hypernetwork", ":1").code == 2
    assert darkroom(*line, "a", "--embedding", "thin").code == 3


def test_words_that_the_built_in_model_never_saw(darkroom):
    ended = darkroom("generate", "a sad cyberpunk robot", "--steps", "1", "--seed", "1", "--json")
    assert ended.code == 0, ended.err
    (words,) = ended.answer["words"]
    assert words["prompt"] == "a sad cyberpunk robot"
    assert [one["word"] for one in words["unseen"]] == ["cyberpunk"]
    assert words["never_together"] == ["sad", "robot"]
    assert "note: emoji never saw the word 'cyberpunk'" in ended.err
    assert "robot" in words["near"]
    assert "never saw" not in darkroom("generate", "a red apple", "--steps", "1").err
