"""No command of a guide goes unseen: each is followed by a test, or named with the reason why it is not; those in the midst of a sentence are at least
known.

Holds the two tables of `tests/support/guide_coverage.py` against the pages. Does not know whether a command works: the tests that follow the pages do.
"""

import re
import shlex

import pytest
from tests.support.guide import RUNS, blocks, commands
from tests.support.guide_coverage import NOT_RUN, WAYS
from tests.unit.house.tree import ROOT, files

from longshore.cli import main
from longshore.cli.reference import commands as tree

PAGES = ["README.md", *files("docs/guide/", ending=".md")]
TREE = dict(tree(main.root, ("longshore",)))
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
# A target of make stands alone or before its variables: there are messages that begin with the word.
_INLINE = re.compile(r"`((?:longshore|repo|volume|node-agent) [^`]+|make [a-z-]+(?: [A-Z][^`]*)?)`")
_NOT_YET = "## What is not there yet"


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_followed_or_named(page):
    seen = {one.name for way in WAYS.values() if way.page == page for one in way.todo}
    named = set(NOT_RUN.get(page, {}))
    assert {one.name for one in commands(page)} == seen | named
    assert not seen & named


def test_tables_name_pages_and_tests_that_are_there():
    assert {*NOT_RUN, *(way.page for way in WAYS.values())} <= set(PAGES)
    for name, way in WAYS.items():
        assert f'follow(\n        "{name}"' in (text := (ROOT / way.test).read_text()) or f'follow("{name}"' in text
        assert way.todo, name
        assert set(way.headings) <= {one.heading for one in blocks(way.page)}


def test_a_new_command_is_seen():
    """The pages that have something to run are those that the tables speak of."""
    with_commands = {page for page in PAGES if any(one.language in RUNS for one in blocks(page))}
    assert with_commands == {*NOT_RUN, *(way.page for way in WAYS.values())}
    assert sum(len(way.todo) for way in WAYS.values()) > 100


def unknown(text):
    """What a command in a sentence names that is not there: a command, an option, a target of make."""
    words = shlex.split(text.replace("…", ""))
    if words[0] == "make":
        return [one for one in words[1:2] if one not in TARGETS]
    if words[0] != "longshore":
        words.insert(0, "longshore")
    path = ("longshore",)
    for one in words[1:]:
        if (*path, one) not in TREE:
            break
        path = (*path, one)
    lost = []
    rest = words[len(path) :]
    if len(path) == 1 or (hasattr(TREE[path], "lazy") and rest and rest[0].islower()):
        lost.append(" ".join(words[: len(path) + 1]))
    known = {name for option in TREE[path].params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
    return lost + [one for one in rest if one.startswith("-") and one.partition("=")[0] not in known]


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_sentences_are_known(page):
    text = re.sub(rf"^{_NOT_YET}\n.*?^## ", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    # Alternatives in one word, as `longshore a|b|c`, speak of several.
    found = [one for one in _INLINE.findall(prose) if "|" not in one]
    assert {one: lost for one in found if (lost := unknown(one))} == {}


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("longshore repo check --read-data", []),
        ("longshore repo key list", []),
        ("longshore volume", []),
        ("longshore status --nonsense", ["--nonsense"]),
        ("longshore repo checks", ["longshore repo checks"]),
        ("repo prune --fence SESSION", []),
        ("make image DEBIAN=current", []),
        ("make imagine", ["imagine"]),
    ],
)
def test_unknown_ones_are_seen(text, lost):
    assert unknown(text) == lost
