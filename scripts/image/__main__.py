"""The commands of `make image`, `make image-twice` and `make image-lock`: turns words into a plan, and says what was made."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from scripts.image import assembly
from scripts.image.tree import ImageError
from scripts.image.twice import make_twice


def main(words: list[str]) -> int:
    """Run one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.image", description="Make the container image.")
    parser.add_argument("verb", choices=["build", "twice", "folder", "lock"])
    parser.add_argument("place", nargs="?", type=Path, help="where `folder` lays the files")
    parser.add_argument("--apt-sources", type=Path, help="a sources.list in place of the machine's")
    parser.add_argument("--current", action="store_true", help="take Debian's packages as the mirror has them today")
    parser.add_argument("--wheel", type=Path, help="a wheel that is built already")
    given = parser.parse_args(words)
    plan = assembly.Plan(sources=given.apt_sources, is_current=given.current, wheel=given.wheel)
    started = time.monotonic()
    try:
        match given.verb:
            case "lock":
                for pin in assembly.lock(plan):
                    print(f"{pin.name} {pin.version}")
            case "twice":
                where = [] if given.apt_sources is None else [f"--apt-sources={given.apt_sources.resolve()}"]
                digest = make_twice(assembly.ROOT, *where, *(["--current"] if given.current else []))
                print(f"{digest}\ntwice the same, {time.monotonic() - started:.0f} s")
            case "folder":
                if given.place is None:
                    parser.error("folder wants a place")
                assembly.write_folder(plan, given.place)
            case _:
                digest = assembly.make(plan)
                size = plan.archive_path.stat().st_size
                print(f"{plan.archive_path}\n{digest}\n{size / 1e6:.1f} MB, {time.monotonic() - started:.0f} s")
    except ImageError as err:
        print(f"error: {err}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
