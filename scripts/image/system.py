"""The system's part of the image: Debian's files less what nothing in it uses, and the few files of /etc that maintainer scripts would have made.

Promises: no shell, no package manager, no cache that only an installer writes. Every package keeps its licence, and its control file where scanners for
vulnerabilities look for it in images without dpkg. It does not know where packages come from.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

from scripts.image.debian import Package
from scripts.image.tree import Directory, File, ImageError, Link, Tree

__all__ = ["USER", "system_files"]

USER = 65532
"""As in longshore.install.workloads.NOBODY."""
_LEFT_OUT = {
    "etc/*": "settings of packages that are not here",
    "usr/bin/*": "programs; the interpreter is kept",
    "usr/sbin/*": "programs",
    "var/*": "state of packages",
    "root/*": "a login's files",
    "home/*": "the same",
    "usr/share/*": "documentation, translations; licences and authorities are kept",
    "usr/lib/*/gconv/*": "character sets: 8 MB",
    "usr/lib/*/audit/*": "for debugging the loader",
    "usr/lib/*/libc_malloc_debug*": "the same",
    "usr/lib/*/libmemusage*": "the same",
    "usr/lib/*/libpcprofile*": "the same",
    "usr/lib/*/libthread_db*": "the same",
    "usr/lib/*/engines-3/*": "OpenSSL's engines",
    "usr/lib/valgrind/*": "for debugging",
    "usr/lib/binfmt.d/*": "the machine's, not the container's",
    "usr/lib/python3.11/ctypes/macholib/*": "for another system",
    "usr/lib/python3.11/curses/*": "for terminals",
    "usr/lib/python3.11/dbm/*": "databases without their library",
    "usr/lib/python3.11/idlelib/*": "an editor",
    "usr/lib/python3.11/lib2to3/*": "Python 2",
    "usr/lib/python3.11/pydoc_data/*": "documentation",
    "usr/lib/python3.11/sqlite3/*": "a database without its library",
    "usr/lib/python3.11/turtle*": "drawing",
    "usr/lib/python3.11/venv/*": "installs packages",
    "usr/lib/python3.11/_distutils_system_mod.py": "the same",
    "usr/lib/python3.11/distutils/*": "the same",
    "usr/lib/python3.11/sitecustomize.py": "Debian's hook; the interpreter runs without site",
    # Extension modules whose libraries are not here; the standard library does without them.
    **{
        f"usr/lib/python3.11/lib-dynload/{name}.*": "its library is not here"
        for name in (
            "_bz2",
            "_crypt",
            "_curses*",
            "_dbm",
            "_lzma",
            "_sqlite3",
            "_test*",
            "_ctypes_test",
            "_uuid",
            "_x*test*",
            "nis",
            "readline",
        )
    },
}
_KEPT = (
    "usr/bin/python3.11",
    "usr/share/ca-certificates/*",
    "usr/share/common-licenses/*",
    "usr/share/doc/*/copyright",
    "etc/debian_version",
    "etc/os-release",
)
_FILES = {
    "etc/passwd": f"root:x:0:0:root:/:/nologin\nnobody:x:65534:65534:nobody:/:/nologin\nlongshore:x:{USER}:{USER}:longshore:/tmp:/nologin\n",
    "etc/group": f"root:x:0:\nnogroup:x:65534:\nlongshore:x:{USER}:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def system_files(packages: Iterable[Package]) -> Tree:
    """Put the system together.

    Raises:
        ImageError: a package's licence is not there, or two packages hold one file.
    """
    whole = Tree()
    packages = list(packages)
    for package in packages:
        whole.merge(package.tree)
    _link_documents(whole)
    tree = whole.without(_is_left_out)
    _drop_empty(tree)
    for package in packages:
        name = package.pin.name
        tree.text(f"var/lib/dpkg/status.d/{name}", package.control)
        if _licence(tree, name) is None:
            raise ImageError(f"a package's licence is not in the image: name={name}")
    for path, text in _FILES.items():
        tree.text(path, text)
    tree.add("etc/ssl/certs/ca-certificates.crt", File(_authorities(tree)))
    # Where OpenSSL looks by itself.
    tree.add("usr/lib/ssl/cert.pem", Link("/etc/ssl/certs/ca-certificates.crt"))
    for folder in ("bin", "sbin", "lib", "lib64"):
        # Some packages name them as directories.
        tree.nodes[folder] = Link(f"usr/{folder}")
    tree.nodes["usr/sbin"] = Directory()
    tree.nodes["tmp"] = Directory(0o1777)
    for folder in ("proc", "sys", "dev", "run"):
        tree.nodes[folder] = Directory()
    return tree


def _is_left_out(path: str) -> bool:
    return not any(fnmatch.fnmatch(path, one) for one in _KEPT) and any(fnmatch.fnmatch(path, one) for one in _LEFT_OUT)


def _drop_empty(tree: Tree) -> None:
    """Drop directories in which nothing is: they are for programs that are not here."""
    held = {
        path.rsplit("/", depth)[0]
        for path, node in tree.nodes.items()
        if not isinstance(node, Directory)
        for depth in range(1, path.count("/") + 1)
    }
    for path in [path for path, node in tree.nodes.items() if isinstance(node, Directory) and path not in held]:
        del tree.nodes[path]


def _link_documents(tree: Tree) -> None:
    """Replace links between documentation folders by what they lead to: the copyright file of the other package."""
    for path, node in list(tree.nodes.items()):
        if isinstance(node, Link) and path.startswith("usr/share/doc/") and path.count("/") == 3:
            other = f"usr/share/doc/{node.target.rsplit('/', 1)[-1]}/copyright"
            del tree.nodes[path]
            if isinstance(tree.nodes.get(other), File):
                tree.nodes[path] = Directory()
                tree.nodes[f"{path}/copyright"] = Link(f"../{other.split('/')[3]}/copyright")


def _licence(tree: Tree, name: str) -> File | None:
    path = f"usr/share/doc/{name}/copyright"
    node = tree.nodes.get(path)
    if isinstance(node, Link):
        node = tree.nodes.get(f"usr/share/doc/{node.target.removeprefix('../')}")
    return node if isinstance(node, File) else None


def _authorities(tree: Tree) -> bytes:
    """Join the authorities' certificates, as update-ca-certificates does: all of Mozilla's are trusted unless an administrator says otherwise."""
    found = [file.data.strip() for path, file in tree.files() if path.startswith("usr/share/ca-certificates/mozilla/")]
    if not found:
        raise ImageError("no authority's certificate is among the packages")
    return b"\n".join(found) + b"\n"
