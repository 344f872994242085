"""The public forms of textual-inversion files."""

import pytest
import torch

from darkroom.errors import CheckpointError
from darkroom.text.textual_inversion import read_embedding

ONE, TWO, WIDE = torch.ones(768), torch.rand(2, 768), torch.rand(2, 1280)


@pytest.mark.parametrize(
    ("content", "name", "vectors"),
    [
        ({"string_to_param": {"*": TWO}, "name": "x", "step": 5}, "bad-hands", [TWO]),
        ({"emb_params": TWO}, "bad-hands", [TWO]),
        ({"clip_g": WIDE, "clip_l": TWO}, "bad-hands", [TWO, WIDE]),
        ({"<cat-toy>": ONE}, "<cat-toy>", [ONE[None]]),
    ],
)
def test_public_forms(content, name, vectors):
    found, read = read_embedding(content, "bad-hands")
    assert found == name
    assert [torch.equal(a, b) for a, b in zip(read, vectors, strict=True)] == [True] * len(vectors)


@pytest.mark.parametrize(
    "content", [{}, [], None, {"a": 1}, {"a": ONE, "b": ONE}, {"emb_params": torch.zeros(0, 768)}]
)
def test_other_files_are_refused_in_one_line(content):
    with pytest.raises(CheckpointError, match="bad-hands: .*expected") as error:
        read_embedding(content, "bad-hands")
    assert "\n" not in str(error.value)
