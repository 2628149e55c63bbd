"""Which commands of the guides no test runs, and why; and which test goes through which page. One table each, for all of them.

`tests/unit/house/test_guides.py` holds both against the pages: a command that is neither run nor named here fails there, as does an entry that fits no
command.
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
    "docs/guide/cluster.md": {
        "kubectl -n shop exec database-0 -- cat /data/began": "goes through a kubelet; the test reads that file itself"
    },
    "docs/guide/image.md": {
        "make image": "compiles once more for minutes; tests/image does all else of it, tests/unit/image holds how it compiles",
        'skopeo copy oci-archive:target/image/longshore-0.1.0-amd64.oci.tar docker://"$IMAGE"': "needs a registry",
        "ctr -n k8s.io images import target/image/longshore-0.1.0-amd64.oci.tar": "tests/node does it, with containerd",
    },
    "docs/guide/directory.md": {"~/rescue/bin/pip install zstandard blake3 xxhash cryptography": _NO_REGISTRY},
}
"""By page and name of the command: the reason."""

NOT_RUN_IN_SENTENCES: Mapping[str, str] = {
    "kubectl -n velero get jobs -l velero.io/repo-name=<repository>": "has a blank to fill in",
    "kubectl -n velero logs job/<name>": "goes through a kubelet",
    "kubectl -n velero logs NODE-AGENT-POD": "goes through a kubelet",
    "kubectl -n NAMESPACE describe pod POD": "has blanks to fill in",
    "kubectl exec": "is no whole command",
    "kubectl -n velero describe": "is no whole command",
}
"""Commands of kubectl in the midst of a sentence that `test_install` does not run: the reason."""


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
    "cluster": Way("docs/guide/cluster.md", test=_CLUSTER),
    "install": Way(
        "docs/guide/install.md",
        ("Before", "The command", "First backup, and back", "Update", "Remove"),
        test=_CLUSTER,
    ),
    "install by Helm": Way("docs/guide/install.md", ("Helm", "Update with Helm", "Remove"), test=_CLUSTER),
    "install by kustomize": Way("docs/guide/install.md", ("kustomize",), test=_CLUSTER),
    "seccomp profile": Way("docs/guide/permissions.md", test=_CLUSTER),
    "velero": Way("docs/guide/velero.md", test=_CLUSTER),
    "maintenance": Way("docs/guide/maintenance.md", test=_CLUSTER),
    "cluster in README": Way("README.md", ("Use it",), ("console",), _CLUSTER),
    "damaged": Way("docs/guide/damaged.md", test=_ENGINE),
}
