"""Every link of a page of ours to another one leads somewhere: the file is there, and the heading, where one is named.

Holds what a forge does with `[text](path#heading)`. Does not know links to other sites, nor whether what is found there is true.
"""

import re
from functools import cache
from pathlib import Path

import pytest
from tests.unit.house.tree import ROOT, files

_LINK = re.compile(r"\]\(([^()\s]+)\)")
_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)
_PAGES = files(ending=".md")


@cache
def prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text())


def slug(heading: str) -> str:
    """What a forge makes of a heading: its words in lower case, joined by hyphens, without marks."""
    shown = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")


@cache
def anchors(page: Path) -> frozenset[str]:
    found: dict[str, int] = {}
    names = set()
    for heading in _HEADING.findall(prose(page)):
        name = slug(heading)
        count = found.get(name, 0)
        found[name] = count + 1
        names.add(f"{name}-{count}" if count else name)
    return frozenset(names)


def broken(page: Path) -> list[str]:
    lost = []
    for target in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists():
            lost.append(f"{target}: no such file")
        elif anchor and (there.suffix != ".md" or anchor not in anchors(there)):
            lost.append(f"{target}: no such heading")
    return lost


@pytest.mark.parametrize("page", _PAGES)
def test_links_lead_somewhere(page):
    assert broken(ROOT / page) == []


def test_broken_links_are_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A `b`, c\n\n[x](#a-b-c) [y](#a-b) [z](gone.md) [w](page.md#a-b-c)\n\n```\n[not](a-link.md)\n```\n"
    )
    assert broken(page) == ["#a-b: no such heading", "gone.md: no such file"]


@pytest.mark.parametrize("picture", files(ending=".svg"))
def test_pictures_fetch_nothing(picture):
    assert re.findall(r"""(?:url\(|href=|src=)["']?https?:[^"')]*""", (ROOT / picture).read_text()) == []
