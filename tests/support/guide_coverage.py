"""Which commands of the guides no test runs, and why; and which test goes through which page. One table each, for all of them.

`tests/unit/house/test_guides.py` holds both against the pages: a command that is neither run nor named here fails there, as does an entry that fits no command.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.support.guide import RUNS, Command, commands

_NO_REGISTRY = "fetches from PyPI; the test has the four packages in that folder already"
_BUILD = "is what makes the program that tests run, or runs them"
_WHEEL = "compiles the extension once more for minutes; `make image` and its tests make and install the wheel"

NOT_RUN: Mapping[str, Mapping[str, str]] = {
    "README.md": {
        "make demo": "tests/cluster/test_demo.py runs it",
        "make test": _BUILD,
        "make build": _BUILD,
        'PATH="$PWD/.venv/bin:$PATH" .venv/bin/maturin build --release --locked': _WHEEL,
        "python3 -m venv ~/longshore": _WHEEL,
        "~/longshore/bin/pip install target/wheels/longshore-*.whl": _WHEEL,
        "~/rescue/bin/pip install zstandard blake3 xxhash cryptography": _NO_REGISTRY,
        "make build (2)": _BUILD,
        "make lint": _BUILD,
        "make test (2)": _BUILD,
    },
    "docs/guide/directory.md": {"~/rescue/bin/pip install zstandard blake3 xxhash cryptography": _NO_REGISTRY},
}
"""By page and name of the command: the reason."""


@dataclass(frozen=True)
class Way:
    """What one test goes through."""

    page: str
    headings: Sequence[str] = ()
    """All when none is named."""
    languages: Sequence[str] = RUNS
    test: str = ""
    """Where."""

    def holds(self, one: Command) -> bool:
        """Tell whether a command is on the way."""
        return (
            one.block.page == self.page
            and one.block.language in self.languages
            and (not self.headings or one.block.heading in self.headings)
        )

    @property
    def left_out(self) -> Mapping[str, str]:
        return NOT_RUN.get(self.page, {})

    @property
    def todo(self) -> list[Command]:
        return [one for one in commands(self.page) if self.holds(one) and one.name not in self.left_out]


_ENGINE, _CLUSTER = "tests/engine/test_guides.py", "tests/cluster/test_guides.py"

WAYS: Mapping[str, Way] = {
    "directory": Way("docs/guide/directory.md", test=_ENGINE),
    "directory in README": Way("README.md", ("Use it", "If Longshore is gone"), ("sh",), _ENGINE),
    "damaged": Way("docs/guide/damaged.md", test=_ENGINE),
}
