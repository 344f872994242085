"""Files of others are opened with limits, whatever they are: an error is one line."""

import json
import os
import socket
import tomllib

import pytest

from darkroom import foreign
from darkroom.errors import CheckpointError, ConfigError


def refused(call, *arguments) -> str:
    with pytest.raises(CheckpointError) as caught:
        call(*arguments, CheckpointError)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    return message


def test_reads(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": [1, 2.5, "x", null, true]}\r\n')
    assert foreign.read_object(path, CheckpointError) == {"a": [1, 2.5, "x", None, True]}
    assert foreign.read_text(path, CheckpointError).endswith("}\n")
    path.write_text('a = 1\n[b]\nc = "d"\n')
    assert foreign.read_toml(path, CheckpointError) == {"a": 1, "b": {"c": "d"}}
    with foreign.open_file(path, CheckpointError) as file:
        assert file.read(1) == b"a"


def test_what_is_no_file(tmp_path):
    assert "folder" in refused(foreign.read_bytes, tmp_path)
    assert "no such file" in refused(foreign.read_bytes, tmp_path / "nothing")
    assert "no such file" in refused(foreign.read_bytes, tmp_path / "a" / "b")
    assert "not a file name" in refused(foreign.read_bytes, "a\0b")
    assert "not a file name" in refused(foreign.read_bytes, "\ud800")
    assert refused(foreign.read_bytes, tmp_path / ("n" * 300))
    (tmp_path / "file").write_text("x")
    assert refused(foreign.read_bytes, tmp_path / "file" / "below")
    assert refused(foreign.read_bytes, tmp_path / "fil").endswith("; did you mean 'file'?")


@pytest.mark.skipif(os.name != "posix", reason="has no such files")
def test_pipes_devices_links(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "pipe" in refused(foreign.read_json, tmp_path / "pipe")
    assert "device" in refused(foreign.read_toml, "/dev/zero")
    (tmp_path / "link").symlink_to("/dev/zero")
    assert "device" in refused(foreign.read_bytes, tmp_path / "link")
    (tmp_path / "loop").symlink_to("loop")
    assert refused(foreign.read_bytes, tmp_path / "loop")
    (tmp_path / "lost").symlink_to("gone")
    assert "link to a file that is gone" in refused(foreign.read_bytes, tmp_path / "lost")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket"))
        assert "pipe or a device" in refused(foreign.read_text, tmp_path / "socket")


def test_sizes(tmp_path):
    path = tmp_path / "long"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # holds nothing
    assert "1,099,511,627,776 bytes" in refused(lambda e: foreign.read_bytes(path, e, 100))
    assert "more than the 1,048,576" in refused(foreign.read_toml, path)


def test_encodings(tmp_path):
    path = tmp_path / "text"
    for data in (b"a \xff", "ä".encode("utf-16"), "ä".encode("latin-1"), b"\xed\xa0\x80"):
        path.write_bytes(data)
        for read in (foreign.read_text, foreign.read_json, foreign.read_toml):
            assert "not UTF-8 text (byte" in refused(read, path)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 100_000,
        "[" * 70 + "]" * 70,
        json.dumps({"a": 10**400}),
        "[1" + "0" * 5000 + "]",
        "[NaN]",
        '{"a": NaN}',
        "NaN",
        "[" + "[]," * 2_100_000 + "[]]",
        "",
        "{",
        '{"a": 1} 2',
        '"\x00"',
    ],
)
def test_json(text):
    assert refused(foreign.parse_json, text, "x.json").startswith("x.json: ")


def test_json_that_is_read():
    assert foreign.parse_json('{"no limit": 1e30}', "", ConfigError) == {"no limit": 1e30}
    limit = 1000000000000000019884624838656  # as transformers writes it
    assert foreign.parse_json(str(limit), "", ConfigError) == limit
    assert foreign.parse_json("[-Infinity]", "", ConfigError) == [-float("inf")]
    deep = "[" * foreign.DEEPEST + "]" * foreign.DEEPEST
    assert foreign.parse_json(deep, "", ConfigError)


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 50_000,
        "a = " + "{b = " * 50_000,
        "[" + "a." * 50_000 + "b]",
        "a." * 50_000 + "b = 1",
        '"a".' * 50_000 + "b = 1",
        "a = {" + "b . " * 50_000 + "c = 1}",
        "a = 1" + "0" * 400,
        "a = 1" + "0" * 5000,
        "a = 0x" + "f" * 400,
        "a = nan",
        "a = [nan]",
        "a = [" + "1," * 2_100_000 + "]",
        "a",
        "a = 1\na = 2",
    ],
)
def test_toml(text):
    assert refused(foreign.parse_toml, text, "x.toml").startswith("x.toml: ")


def test_toml_that_is_read():
    text = 'a.b.c = [0.1, 0.2]\nd = "' + "a.b." * 20 + '"\ninf = inf\n'
    assert foreign.parse_toml(text, "", ConfigError) == tomllib.loads(text)
