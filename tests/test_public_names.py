"""``import darkroom`` imports nothing; each public name is there when it is used."""

import subprocess
import sys
from pathlib import Path

import pytest

import darkroom

SOURCE = Path(darkroom.__file__).parents[1]


def test_import_is_free():
    code = (
        "import sys; before = set(sys.modules); import darkroom; "
        "print(sorted(m for m in set(sys.modules) - before if not m.startswith('importlib')))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path.insert(0, {str(SOURCE)!r}); {code}"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = done.stdout.strip()
    assert "torch" not in found
    assert "darkroom.weights" not in found
    assert "numpy" not in found


@pytest.mark.parametrize("name", darkroom.__all__)
def test_every_public_name_is_there(name):
    assert getattr(darkroom, name) is not None
    assert name in dir(darkroom)


def test_names_are_sorted_and_complete():
    assert sorted(darkroom.__all__) == darkroom.__all__
    assert set(darkroom.__all__) == set(darkroom._HOMES)


def test_an_unknown_name():
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        darkroom.laod  # noqa: B018
