"""A message about lost items is short whatever their number, and the log holds the rest."""

import pytest
from tests.unit.controllers.fake_datapath import Lost

from longshore.controllers import items
from longshore.controllers.items import describe_changed, describe_lost, log_items
from longshore.controllers.pod_volume_restore import left_out_because

CHUNK = "0123456789abcdef" * 4


def test_a_hundred_damaged_files_fit_on_a_screen():
    lost = [
        Lost(b"var/lib/data/file-%05d" % number, f"a chunk is damaged: chunk={number:064x}") for number in range(1000)
    ]
    text = describe_lost("not whole", lost, count=5000)
    assert len(text) < 600 and text.startswith(
        "not whole: items_lost=5000, items=[a chunk is damaged: chunk=000000000000: var/lib/"
    )
    assert "and 990 more] and 4000 more; the agent's log names them all" in text


def test_causes_are_told_once_the_commonest_first():
    lost = [
        Lost(b"a", "no such user"),
        *(Lost(b"b%d" % number, "disk error") for number in range(3)),
        Lost(b"c", "no such user"),
    ]
    text = describe_lost("head", lost, count=5)
    assert text == "head: items_lost=5, items=[disk error: b0, b1, b2; no such user: a, c]"


def test_many_causes_and_long_names_are_bounded():
    lost = [Lost(b"x" * 5000, f"cause {number}: " + "y" * 5000) for number in range(100)]
    text = describe_lost("head", lost, count=100)
    assert len(text) < 4000 and "] and 92 more" in text


@pytest.mark.parametrize(
    "kept", ["snapshot=ls0-" + "ab" * 16, "uid=0b7f9c1e-1c2d-4e5f-8a9b-0123456789ab", "bytes=123456789012345678901"]
)
def test_ids_that_are_typed_in_again_stay_whole(kept):
    text = describe_lost("head", [Lost(b"a", f"cause: {kept}, chunk={CHUNK}")], count=1)
    assert kept in text and CHUNK[:12] in text and CHUNK[:13] not in text


def test_nothing_named_and_nothing_lost():
    assert describe_lost("head", [], count=7) == "head: items_lost=7"
    assert describe_changed([], count=0) == ""
    assert describe_changed([b"a\n"], count=3).endswith("items=[a\\x0a] and 2 more")


def test_log_names_each_item_whole(monkeypatch):
    told = []
    monkeypatch.setattr(items._log, "warning", lambda text, **fields: told.append(fields))
    log_items("not restored", [Lost(b"a\n", f"damaged: chunk={CHUNK}"), Lost(b"b", "y")], count=5, kind="K", key="v/n")
    assert [fields.get("path") for fields in told] == ["a\\x0a", "b", None] and CHUNK in told[0]["reason"]
    assert told[2]["count"] == 3 and {fields["key"] for fields in told} == {"v/n"}


def test_agent_that_is_not_root_says_why_owners_are_left_out():
    assert "owner and mode" in left_out_because(restore_owner=True)
    assert "root" not in left_out_because(restore_owner=True)
    assert left_out_because(restore_owner=False).startswith("owners are left out because the agent is not root, ")
