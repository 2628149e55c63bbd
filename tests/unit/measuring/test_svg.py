"""Pictures: whole XML, the same for the same numbers, points where they belong, labels apart."""

import xml.etree.ElementTree as ET
from itertools import pairwise

from benches.volume.svg import Bar, Line, bars, lines, plain, spread

SVG = "{http://www.w3.org/2000/svg}"


def texts(picture):
    return [element.text for element in ET.fromstring(picture).iter(f"{SVG}text")]


def test_axes_are_logarithmic():
    picture = lines("t", "s", "files", "seconds", [Line("a", [(10, 1), (100, 10), (1000, 100)])])
    [path] = ET.fromstring(picture).findall(f"{SVG}polyline")
    points = [tuple(map(float, pair.split(","))) for pair in path.get("points").split()]
    assert abs((points[1][0] - points[0][0]) - (points[2][0] - points[1][0])) < 0.2
    assert abs((points[0][1] - points[1][1]) - (points[1][1] - points[2][1])) < 0.2
    assert points[0][0] < points[2][0] and points[0][1] > points[2][1]


def test_names_are_escaped_and_lines_without_points_left_out():
    picture = lines("a < b", "s", "x", "y", [Line("<tool>", [(1, 1), (2, 3)]), Line("nothing", [])])
    assert {"a < b", "<tool>"} <= set(texts(picture))
    assert "nothing" not in texts(picture)


def test_nothing_measured_says_so():
    assert "not measured yet" in texts(lines("t", "s", "x", "y", []))
    assert "not measured yet" in texts(bars("t", "s", "s", []))


def test_one_point_is_enough_and_a_limit_is_on_the_axis():
    picture = lines("t", "s", "x", "y", [Line("a", [(1000, 5)])], limit=100)
    assert "limit 100" in texts(picture)
    assert picture == lines("t", "s", "x", "y", [Line("a", [(1000, 5)])], limit=100)


def test_bars_are_stacked_in_proportion():
    picture = bars("t", "s", "s", [Bar("one", {"a": 1.0, "b": 3.0}), Bar("two", {"a": 2.0})])
    found = [e for e in ET.fromstring(picture).findall(f"{SVG}rect") if e.get("height") == "24"]
    widths = [float(e.get("width")) for e in found]
    assert abs(widths[1] - 3 * widths[0]) < 0.3 and abs(widths[2] - 2 * widths[0]) < 0.3
    assert abs(float(found[1].get("x")) - float(found[0].get("x")) - widths[0]) < 0.2
    assert {"4.00 s", "2.00 s", "a", "b"} <= set(texts(picture))


def test_labels_are_moved_apart_in_their_order():
    moved = spread([100, 101, 102, 300], step=16)
    assert sorted(moved) == moved
    assert all(b - a >= 16 for a, b in pairwise(moved))
    assert spread([10, 100]) == [10, 100]


def test_numbers_on_axes():
    assert [plain(n) for n in (0.5, 20, 3000, 2e6)] == ["0.5", "20", "3k", "2M"]
