"""Where the built components lie.

`tests/tools/build.sh` builds them, `tests/tools/versions.txt` pins them, and both that script and this module read the pins there; so a
binary of another version, left in the same cache by another checkout, is never taken for ours.

Does not know: how to build or start anything.
"""

import os
from pathlib import Path

_VERSIONS_PATH = Path(__file__).resolve().parent.parent / "tools" / "versions.txt"


class ComponentMissingError(Exception):
    """A component is not built on this machine; the message says how to build it."""


def tools_dir() -> Path:
    """Tell the cache folder: `$LONGSHORE_TOOLS_DIR`, else `~/.cache/longshore/tools`."""
    configured = os.environ.get("LONGSHORE_TOOLS_DIR")
    return Path(configured) if configured else Path.home() / ".cache" / "longshore" / "tools"


def pinned_versions() -> list[tuple[str, str]]:
    """List (name, version) as pinned, in the file's order."""
    lines = (line.split() for line in _VERSIONS_PATH.read_text().splitlines())
    return [(words[0], words[1]) for words in lines if words and not words[0].startswith("#")]


def find_tool(name: str, *, version: str | None = None) -> Path | None:
    """Find a built component.

    Args:
        name: as in versions.txt.
        version: one of the pinned ones; the first that is pinned under this name when not given.

    Returns:
        Path of the executable, or None when it is not built.

    Raises:
        ValueError: versions.txt pins no such component.
    """
    versions = [v for n, v in pinned_versions() if n == name and version in (None, v)]
    if not versions:
        raise ValueError(f"no such component is pinned: name={name}, version={version}")
    path = tools_dir() / "bin" / f"{name}-{versions[0]}"
    return path if os.access(path, os.X_OK) else None


def require_tool(name: str, *, version: str | None = None) -> Path:
    """Find a built component, or say how to build it.

    Raises:
        ComponentMissingError: it is not built.
    """
    path = find_tool(name, version=version)
    if path is None:
        wanted = name if version is None else f"{name}-{version}"
        raise ComponentMissingError(
            f"{wanted} is not built, run `make tools` or `tests/tools/build.sh {wanted}`: tools_dir={tools_dir()}"
        )
    return path
