"""The same names are kept aside in every set, variants together."""

import pytest

from darkroom.training.data.held_out import family, held_out, split

NAMES = [f"thing {i}" for i in range(2000)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("man judge: dark skin tone", "judge"),
        ("judge", "judge"),
        ("woman running: medium skin tone, facing right", "running"),
        ("woman and man holding hands", "holding hands"),
        ("man: medium skin tone, white hair", "person"),
        ("Mrs. Claus", "claus"),
        ("red heart", "red heart"),
    ],
)
def test_variants_have_one_family(name, expected):
    assert family(name) == expected


def test_a_name_decides_alone():
    learnt, aside = split(NAMES)
    assert sorted(learnt + aside) == list(range(2000))
    assert 150 < len(aside) < 250
    assert [NAMES[i] for i in aside] == [name for name in NAMES if held_out(name)]
    assert split(NAMES, seed=1)[1] != aside
    assert split(NAMES, 0.0)[1] == [] == split(NAMES, 1.0)[0]


def test_variants_stay_together():
    names = [f"{who} number {i}: dark skin tone" for i in range(300) for who in ("man", "woman")]
    _, aside = split(names)
    assert aside and all((i ^ 1) in aside for i in aside)
    _, alone = split(names, families=False)
    assert not all((i ^ 1) in alone for i in alone)


def test_a_share_is_a_share():
    with pytest.raises(ValueError, match="expected 0 to 1"):
        held_out("x", 1.5)
