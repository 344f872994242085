import xml.etree.ElementTree as ET

from darkroom.charts import line_chart


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
