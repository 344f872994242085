import xml.etree.ElementTree as ET

from darkroom.charts import line_chart, matrix_chart


def test_a_chart_is_svg_with_a_curve_for_each_name():
    svg = line_chart({"a": [(0, 1.0), (1, 2.0)], "b<": [(0, 3.0)]}, title="t & u", x="step", y="y")
    root = ET.fromstring(svg)
    lines = [node for node in root.iter() if node.tag.endswith("polyline")]
    assert len(lines) == 2
    first, last = (tuple(map(float, p.split(","))) for p in lines[0].get("points").split())
    assert first[0] < last[0]
    assert first[1] > last[1]  # up is more


def test_what_cannot_be_drawn_is_left_out():
    points = [(0, float("nan")), (1, 0.0), (2, 10.0), (3, 100.0)]
    svg = line_chart({"a": points}, log=True)
    (line,) = [node for node in ET.fromstring(svg).iter() if node.tag.endswith("polyline")]
    assert len(line.get("points").split()) == 2
    assert ET.fromstring(line_chart({})) is not None
    long = line_chart({"a": [(i, float(i % 7)) for i in range(100_000)]})
    assert len(long) < 60_000


def test_a_heat_map_is_darkest_where_the_number_is_largest():
    svg = matrix_chart([[0.0, 1.0], [float("nan"), 0.5]], rows=["a", "<b"], columns=["c", "d"])
    root = ET.fromstring(svg)
    cells = [node.get("fill") for node in root.iter() if node.tag.endswith("rect")][1:]
    assert cells == ["rgb(255,255,255)", "rgb(37,99,235)", "rgb(146,177,245)"]  # none for the NaN
    words = [node.text for node in root.iter() if node.tag.endswith("text")]
    assert {"a", "<b", "c", "d", "0.00", "1.00", "0.50"} <= set(words)
    assert ET.fromstring(matrix_chart([[1.0, 1.0]])) is not None  # nothing between them
    assert ET.fromstring(matrix_chart([])) is not None
