"""The dashboard's JSON: places, names, variables; and what is refused because the picture could not show it."""

import json

import pytest
from scripts.dashboard.__main__ import VARIABLES, faults, installed
from scripts.dashboard.board import BoardError, Panel, Target, called, fill, metric_names, overlaps, read
from scripts.dashboard.draw import Named
from scripts.dashboard.prometheus import configuration, series


def panel(title="p", *, x=0, y=0, width=6, height=4, expr="longshore_a", says="", **other):
    made = {"kind": "timeseries", "unit": "none", "bottom": 0.0, "steps": ()} | other
    return Panel(title, description=says, x=x, y=y, width=width, height=height, targets=(Target(expr, ""),), **made)


def written(**change):
    one = {
        "title": "p",
        "type": "stat",
        "gridPos": {"x": 0, "y": 0, "w": 6, "h": 4},
        "fieldConfig": {"defaults": {"unit": "s", "thresholds": {"steps": [{"color": "green", "value": None}]}}},
        "targets": [{"expr": "up"}],
    }
    return json.dumps({"title": "t", "panels": [one | change]})


def test_a_dashboard_is_read():
    title, [one] = read(written())
    assert (title, one.kind, one.unit, one.bottom) == ("t", "stat", "s", None)
    assert one.steps == ((float("-inf"), "green"),) and one.targets == (Target("up", ""),)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"type": "heatmap"}, "type that cannot be drawn: panel='p', type=heatmap"),
        ({"fieldConfig": {"defaults": {"unit": "furlongs"}}}, "unit that cannot be written: panel='p', unit=furlongs"),
        ({"gridPos": {"x": 20, "y": 0, "w": 6, "h": 4}}, "beyond the grid: p"),
    ],
)
def test_what_cannot_be_shown_is_refused(change, said):
    with pytest.raises(BoardError, match=said):
        read(written(**change))


def test_overlaps_are_named():
    assert overlaps([panel("a"), panel("b", x=6), panel("c", y=4)]) == []
    assert overlaps([panel("a"), panel("b", x=5)]) == ["b"]
    assert overlaps([panel("a"), panel("b", y=3)]) == ["b"]
    assert overlaps([panel("a", width=0), panel("b", x=-1)]) == ["a", "b"]


def test_variables_are_filled_and_unknown_ones_refused():
    values = {"__rate_interval": "4s", "ns": "shop"}
    assert (
        fill('rate(a{n="$ns"}[$__rate_interval]) + b{n="${ns:regex}"}', values) == 'rate(a{n="shop"}[4s]) + b{n="shop"}'
    )
    with pytest.raises(BoardError, match="variable=other"):
        fill("a[$other]", values)


def test_every_variable_of_the_dashboard_is_filled():
    _, text = installed()
    for one in read(text)[1]:
        for target in one.targets:
            fill(target.expr, VARIABLES)


def test_series_are_called_by_the_legend_or_by_all_labels():
    assert called("{{ns}}/{{claim}}{{pod}} {{volume}}", {"ns": "shop", "claim": "db"}) == "shop/db"
    assert called("", {"__name__": "up", "b": "2", "a": "1"}) == 'up{a="1", b="2"}'


def test_names_are_found_wherever_they_stand():
    expr = '{__name__=~"longshore_a|longshore_b"} / rate(velero_c_total[5m]) or workqueue_depth{name="x"} or vector(0)'
    assert metric_names(expr) == {"longshore_a", "longshore_b", "velero_c_total", "workqueue_depth"}


def test_a_panel_that_nobody_feeds_is_named():
    panels = [
        panel("good"),
        panel("empty"),
        panel("may be", says="Empty while no job runs."),
        panel("typo", expr="longshore_b or vector(0)"),
    ]
    points = [Named("s", [(1.0, 1.0)])]
    said = faults(panels, {"good": points, "empty": [], "may be": [], "typo": points}, {"longshore_a"})
    assert said == [
        "panel 'empty' is empty, and its description does not say 'Empty while'",
        "panel 'typo' asks for metrics that nobody serves: longshore_b",
    ]
    assert faults(panels[:1], {"good": points}, {"longshore_a"}) == []


def test_prometheus_scrapes_as_the_release_says():
    endpoint, _ = installed()
    made = configuration(endpoint, {"agent": 1, "server": 2})
    [scrape] = made["scrape_configs"]
    assert scrape["honor_labels"] is True and made["global"]["scrape_interval"] == "1s"
    assert [one["targets"] for one in scrape["static_configs"]] == [["127.0.0.1:1"], ["127.0.0.1:2"]]
    del endpoint["honorLabels"]
    assert configuration(endpoint, {})["scrape_configs"][0]["honor_labels"] is False


def test_answers_are_read_without_what_is_no_number():
    result = [
        {"metric": {"a": "2"}, "values": [[1, "NaN"], [2, "+Inf"]]},
        {"metric": {"a": "1"}, "values": [[1, "NaN"], [2, "3.5"]]},
    ]
    [one] = series({"status": "success", "data": {"result": result}})
    assert one.labels == {"a": "1"} and one.points == [(2.0, 3.5)]
    with pytest.raises(BoardError, match="refuses a query: parse error"):
        series({"status": "error", "error": "parse error"})
