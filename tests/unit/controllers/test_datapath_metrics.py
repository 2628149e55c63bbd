"""The data path's sums as Prometheus sees them: one series for each name, with the process's own labels before it."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from longshore.controllers.datapath_metrics import DataPathMetrics
from longshore.datapath import Counts, Lookups


@pytest.mark.parametrize(("labels", "text"), [({"node": "n"}, 'node="n",'), (None, "")], ids=["agent", "server"])
def test_sums_are_read_at_each_scrape(labels, text):
    now = []
    registry = CollectorRegistry()
    registry.register(DataPathMetrics(lambda: now[-1], labels=labels))
    for step in range(2):
        now.append(
            Counts(
                store_requests={"get": 7 + step, "list": 0},
                store_errors={"unavailable": 3 + step, "denied": 0},
                cache_lookups={"index": Lookups(5 + step, 2)},
            )
        )
        lines = generate_latest(registry).decode().splitlines()
        found = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}
        node = text.removesuffix(",")
        both = f",{node}" if node else ""
        assert found == {
            f'longshore_store_requests_total{{{text}verb="get"}}': 7 + step,
            f'longshore_store_requests_total{{{text}verb="list"}}': 0,
            f'longshore_store_errors_total{{kind="unavailable"{both}}}': 3 + step,
            f'longshore_store_errors_total{{kind="denied"{both}}}': 0,
            f'longshore_cache_lookups_total{{{text}result="hit",what="index"}}': 5 + step,
            f'longshore_cache_lookups_total{{{text}result="miss",what="index"}}': 2,
        }
