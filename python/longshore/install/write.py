"""Writes daemonset/: `python -m longshore.install.write --output daemonset`.

Promises: files that we once wrote and no longer make are removed from chart/ and base/; crds/ is :mod:`longshore.api.crdgen`'s.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from longshore.install.chart import chart, kustomize

__all__ = ["files", "main", "write"]


def files() -> dict[str, str]:
    """Give every file by its path below daemonset/."""
    return {**{f"chart/{name}": text for name, text in chart().items()}, **kustomize()}


def write(folder: Path) -> None:
    """Write every file, and remove what is none of ours from the folders that hold nothing else."""
    wanted = files()
    for own in ("chart", "base"):
        for path in sorted((folder / own).rglob("*")):
            if path.is_file() and path.relative_to(folder).as_posix() not in wanted:
                path.unlink()
    for name, text in wanted.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m longshore.install.write", description=write.__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder to write into")
    write(parser.parse_args(arguments).output)


if __name__ == "__main__":
    main()
