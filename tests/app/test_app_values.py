"""Bad values are refused, with the nearest good one, before anything is loaded."""

import pytest
import typer

from darkroom.app import values
from darkroom.errors import ConfigError, ModelNotFoundError


def test_sizes_are_width_by_height():
    assert values.size("768x512") == (512, 768)
    assert values.size("64X64") == (64, 64)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("512", "WIDTHxHEIGHT"),
        ("512x", "WIDTHxHEIGHT"),
        ("-8x8", "WIDTHxHEIGHT"),
        ("500x512", "504"),
        ("512x515", "height 515 is no multiple of 8; the nearest that is: 512"),
        ("0x8", "width 0"),
        ("99999x8", "16384"),
    ],
)
def test_bad_sizes(text, said):
    with pytest.raises(typer.BadParameter) as caught:
        values.size(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("parse", "text", "said"),
    [
        (values.sampler, "dpm++ 2m", "did you mean 'dpmpp_2m'?"),
        (values.sampler, "Euler", "did you mean 'euler'?"),
        (values.sampler, "DPM2 a", "did you mean 'dpm2_ancestral'?"),
        (values.spacing, "karas", "did you mean 'karras'?"),
        (values.timesteps, "999,x", "'x' is no timestep"),
        (values.timesteps, "", "'' is no timestep"),
        (values.timesteps, "-5", "'-5' is no timestep"),
        (values.timesteps, "900,900", "900 comes after 900; timesteps must decrease"),
        (values.timesteps, "1,2,3", "2 comes after 1; timesteps must decrease"),
        (values.timesteps, ",".join(["9"] * 1001), "expected at most 1000"),
        (values.dtype, "fp16", "known: float32 float16 bfloat16"),
        (values.device, "cudda", "did you mean 'cuda'?"),
        (values.device, "cuda:x", "known: cpu cuda mps"),
        (values.device, "cpu:", "known"),
        (values.guidance, "nan", "from 0 to 100"),
        (values.guidance, "-1", "from 0 to 100"),
        (values.guidance, "much", "from 0 to 100"),
        (values.strength, "0", "above 0 and at most 1"),
        (values.strength, "1.01", "above 0 and at most 1"),
        (values.strength, "inf", "above 0 and at most 1"),
        (values.seed, "-1", "from 0 to"),
        (values.seed, "9223372036854775808", "from 0 to"),
        (values.seed, "1e3", "from 0 to"),
        (values.seed, "٣", "from 0 to"),
    ],
)
def test_bad_values(parse, text, said):
    with pytest.raises(typer.BadParameter) as caught:
        parse(text)
    assert said in str(caught.value)


def test_good_values():
    assert values.seed("9223372036854775807") == 2**63 - 1
    assert values.strength("1") == 1.0
    assert values.guidance("7.5") == 7.5
    assert values.device("cuda:1") == "cuda:1"


def test_a_file_of_prompts(tmp_path):
    file = tmp_path / "ideas.txt"
    file.write_text("\ufeffa fox\r\n\n  # not a comment \nein Bär\n", "utf-8")
    assert values.prompts_file(file) == ("a fox", "# not a comment", "ein Bär")


def test_bad_files_of_prompts(tmp_path):
    with pytest.raises(ModelNotFoundError):
        values.prompts_file(tmp_path / "nothing.txt")
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(typer.BadParameter):
        values.prompts_file(tmp_path / "empty.txt")
    (tmp_path / "binary.txt").write_bytes(b"a fox\n\xff\xfe")
    with pytest.raises(ConfigError, match="byte 6"):
        values.prompts_file(tmp_path / "binary.txt")


def test_a_missing_file_names_its_neighbour(tmp_path):
    (tmp_path / "photo.jpg").write_bytes(b"")
    assert values.existing(tmp_path / "photo.jpg", "picture").name == "photo.jpg"
    with pytest.raises(ModelNotFoundError) as caught:
        values.existing(tmp_path / "foto.jpg", "picture")
    assert "did you mean 'photo.jpg'?" in str(caught.value)
