"""The image's own interpreter, at work while the image is made: bytecode and compression.

It is started through its own loader from a folder, without root and without chroot. Promises: bytecode carries the paths of the image, never the folder's, and
is not compared with its source when it is loaded (`unchecked-hash`), since the root is read-only and the sources' dates mean nothing; the same sources
give the same bytecode. It does not know which files are worth compiling.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

from scripts.image.tree import File, ImageError, Tree

__all__ = ["PROGRAM", "Interpreter"]

PROGRAM = "usr/bin/python3.11"
_TAG = "cpython-311"
# Both read a folder and write into another. One process, sorted, with fixed hashes: marshal's output depends on what was interned before.
_COMPILE = """
import importlib.util, pathlib, sys
source, target = map(pathlib.Path, sys.argv[1:3])
for path in sorted(source.rglob("*.py")):
    name = path.relative_to(source).as_posix()
    data = path.read_bytes()
    try:
        code = compile(data, "/" + name, "exec", dont_inherit=True, optimize=int(sys.argv[3]))
    except (SyntaxError, ValueError):
        continue
    out = target / (name + "c")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(importlib._bootstrap_external._code_to_hash_pyc(code, importlib.util.source_hash(data), False))
"""
_GZIP = """
import gzip, pathlib, sys
source, target = map(pathlib.Path, sys.argv[1:])
target.write_bytes(gzip.compress(source.read_bytes(), 6, mtime=0))
"""


class Interpreter:
    """The interpreter of a tree.

    Args:
        system: the Debian files; laid down below `folder`.
        folder: an empty folder that lives as long as this.
    """

    def __init__(self, system: Tree, folder: Path) -> None:
        system.write(folder, mtime=0)
        self._root = folder
        loaders = sorted(folder.glob("usr/lib*/ld-linux-*.so.*"))
        if not loaders:
            raise ImageError(f"the C library's loader is not among the packages: folder={folder}")
        libraries = ":".join(str(place) for place in sorted(folder.glob("usr/lib/*-linux-gnu")))
        self._command = [str(loaders[0]), "--library-path", libraries, str(folder / PROGRAM), "-sSB"]

    def bytecode(self, tree: Tree, *, instead: bool = False) -> Tree:
        """Compile a tree's Python files.

        Args:
            instead: keep the bytecode alone, without docstrings and asserts.

        Returns:
            The tree with bytecode; a file that is no Python 3.11 (a template, say) stays as it is.
        """
        with tempfile.TemporaryDirectory(dir=self._root) as scratch:
            source, target = Path(scratch, "source"), Path(scratch, "target")
            target.mkdir()
            Tree({path: node for path, node in tree.nodes.items() if path.endswith(".py")}).write(source, mtime=0)
            self._run(_COMPILE, source, target, "2" if instead else "0")
            made = {path.relative_to(target).as_posix()[:-1]: path.read_bytes() for path in target.rglob("*.pyc")}
        result = tree.without(lambda path: instead and path in made)
        for path, data in sorted(made.items()):
            if instead:
                result.add(f"{path}c", File(data))
            else:
                folder, _, name = path.rpartition("/")
                result.add(f"{folder}/__pycache__/{name.removesuffix('.py')}.{_TAG}.pyc", File(data))
        return result

    def gzip(self, data: bytes) -> bytes:
        """Compress; the same bytes on every machine."""
        with tempfile.TemporaryDirectory(dir=self._root) as scratch:
            source, target = Path(scratch, "source"), Path(scratch, "target")
            source.write_bytes(data)
            self._run(_GZIP, source, target)
            return target.read_bytes()

    def _run(self, program: str, *arguments: Path | str) -> None:
        environment = {
            "PYTHONHOME": str(self._root / "usr"),
            "PYTHONHASHSEED": "0",
            "LC_ALL": "C.UTF-8",
            "PATH": os.defpath,
        }
        answer = subprocess.run(
            [*self._command, "-c", program, *map(str, arguments)], env=environment, capture_output=True, check=False
        )
        if answer.returncode:
            raise ImageError(
                f"the image's interpreter cannot run here: said={answer.stderr.decode(errors='replace').strip()[-800:]}"
            )
