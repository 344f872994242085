import numpy as np
from PIL import Image

from darkroom.vision.plots import BLUE, SIDE, bar_sheet, bars, heat_map
from vision import things


def blue(picture: Image.Image) -> np.ndarray:
    return (np.asarray(picture) == BLUE).all(-1)


def test_bars_are_as_long_as_the_shares():
    picture = Image.new("RGB", (300, 200), "green")
    drawn = bars(picture, [("yes", 0.75), ("no", 0.25), ("never", 0.0)], "a title")
    rows = blue(drawn)[:, SIDE:].sum(1)
    lengths = sorted({int(n) for n in rows if n > 20})
    assert [round(n / 180, 1) for n in lengths] == [0.2, 0.8] or lengths == [46, 136]
    assert drawn.getpixel((SIDE // 2, SIDE // 2)) == (0, 128, 0)


def test_sheets_and_long_names_stay_small():
    cells = [(things.draw("red", "bar"), [("w" * 200, 1.0)] * 12, "t" * 500)] * 5
    sheet = bar_sheet(cells)
    assert sheet.width < 2 * 800
    assert sheet.height > 3 * 12 * 20
    assert bar_sheet(cells[:1]).width < 800


def test_a_heat_map_is_darkest_where_the_number_is_largest():
    values = [[0.1, 0.9, 0.2], [0.3, -0.4, 0.5]]
    pictures = [things.draw(colour, "square") for colour in things.COLOURS]
    for options in ({"pictures": pictures}, {"columns": ("a", "b", "c")}, {}):
        drawn = heat_map(values, ("one", "two"), title="cosines", **options)
        ys, xs = blue(drawn).nonzero()
        assert len(xs) > 300
        cell = 80 if "pictures" in options else 64
        assert xs.max() - xs.min() < cell
        assert ys.max() - ys.min() < cell
    counts = heat_map([[5, 1000], [0, 3]], whole=True)
    assert blue(counts).any()
    assert heat_map([[1.0]]).size[0] > 20
