"""What pages tell people to look for is what the program says.

A table whose first column is called "you see" quotes messages in code marks. Each of at least four words must stand in the sources as it is quoted;
`…` and words in capitals stand for anything. Does not know what Kubernetes says: messages of others are named below.
"""

import re
from functools import cache

import pytest
from tests.unit.house.tree import ROOT, files

_OTHERS = {
    "hostPath type check failed: /var/lib/kubelet/pods is not a directory",  # the kubelet
    "is not yet valid",  # OpenSSL
    "0 of … ready; NODE: ended with …: exec format error",  # the last words are the kernel's
}
_QUOTED = re.compile(r"`([^`]+)`")
# A message may be put together: what was done, what is wrong with what.
_SEAM = re.compile(r"…|\b[A-Z]{2,}\b|\bN\b|: |(?= is damaged)")


def messages(page: str) -> list[str]:
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", (ROOT / page).read_text(), re.MULTILINE):
        head, *rows = table.splitlines()
        if "you see" in head.split("|")[1]:
            found += [quoted for row in rows for quoted in _QUOTED.findall(row.split("|")[1])]
    return [one for one in found if len(one.split()) >= 4 and one not in _OTHERS]


@cache
def sources() -> str:
    """All code as one text, where a message that goes over several literals stands in one piece, its values left out."""
    text = "\n".join((ROOT / name).read_text() for name in files("python/", "rust/", ending=(".py", ".rs")))
    text = re.sub(r'"\s*\n\s*[rf]*"', "", text)
    text = re.sub(r"\\\n\s*", "", text)
    return re.sub(r'\{[^{}"\n]*\}', "", text)


def is_said(message: str) -> bool:
    return all(part.strip() in sources() for part in _SEAM.split(message) if part and part.strip(" :;,="))


QUOTES = [(page, message) for page in files("docs/", ending=".md") for message in messages(page)]


@pytest.mark.parametrize(("page", "message"), QUOTES)
def test_quoted_messages_are_said(page, message):
    assert is_said(message)


def test_another_wording_is_seen():
    assert len(QUOTES) > 40
    assert not is_said("the volume is on this node twice")
