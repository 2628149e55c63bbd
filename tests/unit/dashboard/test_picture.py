"""The picture's pure parts: values with units, marks of an axis, legends that stay in their frame, lines broken where nothing was measured."""

import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts.dashboard.__main__ import installed
from scripts.dashboard.board import Panel, Target, read
from scripts.dashboard.draw import Named, draw, fit, legend_rows, runs
from scripts.dashboard.units import UNITS, marks, written

ROOT = Path(__file__).resolve().parents[3]
SVG = "{http://www.w3.org/2000/svg}"


def panel(title="p", kind="timeseries", *, unit="none", steps=(), width=12, height=8, x=0):
    return Panel(title, kind, unit, "", x, 0, width, height, (Target("a", ""),), 0.0, steps)


def picture(panels, answers, *, start=1000.0, end=1100.0):
    return draw("Board & more", "what", panels, answers, start=start, end=end)


def texts(svg):
    return [element.text for element in ET.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0, "none", "0"),
        (3.0, "none", "3"),
        (0.25, "none", "0.25"),
        (1234.0, "none", "1234"),
        (0.0, "s", "0 s"),
        (0.2, "s", "200 ms"),
        (45.0, "s", "45 s"),
        (60.0, "s", "1 min"),
        (90.0, "s", "1.5 mins"),
        (7200.0, "s", "2 hours"),
        (86400.0, "s", "1 day"),
        (1023.0, "bytes", "1023 B"),
        (1536.0, "bytes", "1.5 KiB"),
        (400 * 2**20, "bytes", "400 MiB"),
        (3 * 2**60, "bytes", "3072 PiB"),
        (2**20, "binBps", "1 MiB/s"),
        (0.125, "percentunit", "12.5%"),
        (1.0, "percentunit", "100%"),
    ],
)
def test_values_are_written_with_their_unit(value, unit, text):
    assert written(value, unit) == text


@given(st.floats(0, 1e15), st.floats(0, 1e15), st.sampled_from(sorted(UNITS)))
def test_marks_cover_all_at_equal_distances_and_are_few(low, high, unit):
    low, high = sorted((low, high))
    found = marks(low, high, unit)
    assert 2 <= len(found) <= 8
    slack = (found[1] - found[0]) * 1e-6
    assert found[0] <= low + slack and found[-1] >= high - slack
    steps = [after - before for before, after in pairwise(found)]
    assert max(steps) - min(steps) <= max(steps) * 1e-3


def test_marks_are_round_in_their_unit():
    assert marks(0, 170, "s") == [0, 60, 120, 180]
    assert [written(one, "bytes") for one in marks(0, 400 * 2**20, "bytes")] == [
        "0 B",
        "128 MiB",
        "256 MiB",
        "384 MiB",
        "512 MiB",
    ]
    assert marks(0, 2, "none") == [0, 1, 2]
    assert marks(0, 0, "none") == [0, 1]


def test_words_are_cut_to_the_width():
    assert fit("short", 200, 12) == "short"
    cut = fit("x" * 200, 100, 12)
    assert cut.endswith("…") and len(cut) * 12 * 0.58 <= 100


def test_legend_stays_in_its_frame_and_counts_what_has_no_room():
    rows, more = legend_rows([f"series number {n}" for n in range(40)], 400)
    assert len(rows) == 4 and more == 40 - sum(map(len, rows))
    for row in rows:
        assert all(x + 20 + len(name) * 11.5 * 0.58 <= 400 for x, _, name in row)
        assert all(after[0] > before[0] + len(before[2]) * 5 for before, after in pairwise(row))
    assert legend_rows(["a", "b"], 400)[1] == 0


def test_a_line_is_broken_where_nothing_was_measured():
    assert runs([(0, 1), (1, 1), (5, 2), (6, 2)]) == [[(0, 1), (1, 1)], [(5, 2), (6, 2)]]
    assert runs([(0, 1)]) == [[(0, 1)]]
    svg = picture([panel()], {"p": [Named("s", [(1000.0, 1.0), (1001.0, 2.0), (1050.0, 1.0), (1051.0, 1.0)])]})
    assert len(ET.fromstring(svg).findall(f"{SVG}polyline")) == 2


def test_points_stand_where_the_axes_say():
    svg = picture([panel()], {"p": [Named("s", [(1000.0, 0.0), (1050.0, 5.0), (1100.0, 10.0)])]})
    [line] = ET.fromstring(svg).findall(f"{SVG}polyline")
    (x1, y1), (x2, y2), (x3, y3) = (tuple(map(float, pair.split(","))) for pair in line.get("points").split())
    assert abs((x2 - x1) - (x3 - x2)) < 0.2 and abs((y1 - y2) - (y2 - y3)) < 0.2 and x1 < x3 and y1 > y3
    words = texts(svg)
    assert {"0", "10", "s", "p", "Board & more"} <= set(words)
    assert "00:17:00" in words


def test_a_number_takes_the_colour_of_its_threshold():
    steps = ((float("-inf"), "green"), (1.0, "red"))
    for value, colour in ((0.0, "#1a7f37"), (1.0, "#cf222e")):
        svg = picture([panel(kind="stat", steps=steps)], {"p": [Named("s", [(1000.0, 0.0), (1001.0, value)])]})
        [number] = [one for one in ET.fromstring(svg).iter(f"{SVG}text") if one.get("font-size") == "42"]
        assert (number.text, number.get("fill")) == (written(value, "none"), colour)


def test_an_empty_panel_says_so_and_names_are_escaped():
    svg = picture([panel("a"), panel("b", x=12)], {"b": [Named("<x> & y", [(1000.0, 1.0)])]})
    assert texts(svg).count("No data") == 1 and "<x> & y" in texts(svg)


def test_picture_in_the_docs_is_of_this_dashboard():
    """Each panel with the very expression that it asks, at its place: a panel that is added, changed or moved asks for a new picture."""
    title, panels = read(installed()[1])
    assert len(panels) > 10

    def frames(svg):
        rects = [one for one in ET.fromstring(svg).iter(f"{SVG}rect") if one.find(f"{SVG}title") is not None]
        return [(one.get("x"), one.get("y"), one.get("width"), one.find(f"{SVG}title").text) for one in rects]

    taken = (ROOT / "docs/pictures/dashboard.svg").read_text()
    assert frames(taken) == frames(draw(title, "", panels, {}, start=0.0, end=1.0)), "run: make dashboard"
    assert {panel.title for panel in panels} <= set(texts(taken)), "run: make dashboard"
