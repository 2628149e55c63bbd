"""One node for a whole session, with longshore installed on it.

Promises: outside a room, or where a component is not built, tests are skipped and say why; with `CI=true` that is a failure. What is built and does not start
is a failure everywhere. The figures are printed at the end.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.figures import Figures
from tests.node.images import archives
from tests.node.node import IMAGES, Node
from tests.node.room import FOLDER
from tests.node.site import Site
from tests.support.components import ComponentMissingError, interrupt_on_sigterm
from tests.support.lacking import lacks

_FIGURES = Figures()


@pytest.fixture(scope="session")
def figures() -> Figures:
    """Give the place for what is measured."""
    return _FIGURES


@pytest.fixture(scope="session")
def node(figures: Figures) -> Iterator[Node]:
    """Start a node."""
    interrupt_on_sigterm()
    if FOLDER not in os.environ:
        lacks("a node is started in a room of its own only, run `make test-node` as root")
    if len(archives(IMAGES)) < 2:
        lacks(f"the images of the node are not made, see what `make test-node` said: folder={IMAGES}")
    made = Node()
    try:
        try:
            made.start()
        except ComponentMissingError as err:
            lacks(str(err))
        for step, seconds in made.took.items():
            figures.seconds(f"start: {step}", seconds)
        yield made
    finally:
        made.stop()
        _keep_logs(made.folder)


@pytest.fixture(scope="session")
def site(node: Node, figures: Figures) -> Site:
    """Install longshore and wait for its agent."""
    made = Site(node)
    started = time.monotonic()
    made.install()
    made.agent()
    figures.seconds("install until the agent is Ready", time.monotonic() - started)
    return made


def _keep_logs(folder: Path) -> None:
    kept = os.environ.get("LONGSHORE_NODE_LOGS")
    if kept:
        for log in folder.glob("*/**/*.log"):
            target = Path(kept) / log.relative_to(folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(log.read_bytes())


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures."""
    if _FIGURES.rows:
        terminalreporter.section("figures")
        for line in _FIGURES.table():
            terminalreporter.write_line(line)
