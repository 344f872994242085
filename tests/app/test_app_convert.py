"""``darkroom models convert`` and ``merge`` as people type them."""

from darkroom.app.commands import convert

FAST = ("--size", "64x64", "--steps", "1", "--seed", "3", "--no-mark", "--json")


def test_there_and_back_draws_the_same_picture(darkroom, model_folder, tmp_path):
    file, back = tmp_path / "one.safetensors", tmp_path / "back"
    first = darkroom("models", "convert", model_folder, file, "--json")
    assert first.code == 0, first.err
    assert first.answer["path"] == str(file)
    assert darkroom("models", "convert", file, back).code == 0
    drawn = []
    for n, model in enumerate((model_folder, file, back)):
        out = tmp_path / f"{n}.png"
        ended = darkroom("generate", "a cat", "--model", model, *FAST[:-2], "--out", out)
        assert ended.code == 0, ended.err
        from PIL import Image

        drawn.append(Image.open(out).tobytes())
    assert drawn[0] == drawn[1] == drawn[2]
    assert darkroom("models", "convert", file, back).code == 3
    assert "--force" in darkroom("models", "convert", file, back).error


def test_merging(darkroom, model_folder, tmp_path):
    out = tmp_path / "m.safetensors"
    ended = darkroom("models", "merge", model_folder, model_folder, "--ratio", "0.5", "--out", out)
    assert ended.code == 0, ended.err
    assert out.stat().st_size > 1000
    wrong = darkroom("models", "merge", model_folder, "--out", tmp_path / "n.safetensors")
    assert wrong.code == 2
    assert "takes 2 models" in wrong.error


def test_both_are_verbs():
    assert callable(convert.add_to)
