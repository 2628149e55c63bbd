"""Two builds compared: what differs is found and named, and each is made from a clone, a cargo home and a target folder of its own."""

import gzip
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scripts.image import twice
from scripts.image.oci import Image, Layer, write_archive
from scripts.image.tree import File, ImageError, Tree

# What a clone's own build command does here: an image whose file says where and under what it was made, as far as the test wants it to.
_BUILD = """
import gzip, os, sys
from pathlib import Path
from scripts.image.oci import Image, Layer, write_archive
from scripts.image.tree import File, Tree
here = Path.cwd()
tree = Tree()
tree.add("at", File({tells}.encode(), 0o644))
home = Path(os.environ["CARGO_HOME"])
assert (home / "registry" / "cache" / "a.crate").read_text() == "a" and not (home / "registry" / "src").exists()
assert sys.argv[1:] == ["build", "--current"], sys.argv
archive = here / "x.oci.tar"
print(archive)
print(write_archive(Image("localhost/x:1", "amd64", 7, [Layer(tree, "x")], {{}}), archive, gzip=lambda data: gzip.compress(data, mtime=0)))
"""


def _archive(place: Path, files: dict[str, str], *, level: int = 9, **config: Any) -> Path:
    tree = Tree()
    for name, text in files.items():
        tree.add(name, File(text.encode(), 0o755 if name.endswith("run") else 0o644))
    image = Image("localhost/x:1", "amd64", 7, [Layer(tree, "x")], config)
    write_archive(image, place, gzip=lambda data: gzip.compress(data, level, mtime=0))
    return place


@pytest.mark.parametrize(
    ("files", "how", "named"),
    [
        ({"a": "1", "b": "2"}, {}, []),
        ({"a": "1", "b": "3"}, {}, ["(layer 0)", "b"]),
        ({"a": "1"}, {}, ["(layer 0)", "b"]),
        ({"a": "1", "b": "2", "c": ""}, {}, ["(layer 0)", "c"]),
        ({"a": "1", "b": "2"}, {"User": "0"}, ["(configuration)"]),
        ({"a": "1", "b": "2"}, {"level": 0}, ["(layer 0)"]),
    ],
)
def test_what_differs_is_named(tmp_path: Path, files: dict[str, str], how: dict[str, Any], named: list[str]) -> None:
    one = _archive(tmp_path / "one", {"a": "1", "b": "2"})
    assert twice.differing(one, _archive(tmp_path / "other", files, **how)) == named


def _clone(place: Path, tells: str) -> Path:
    (place / "scripts").mkdir(parents=True)
    real = Path(twice.__file__).parent
    (place / "scripts" / "image").mkdir()
    for name in ("oci.py", "tree.py"):
        (place / "scripts" / "image" / name).write_bytes((real / name).read_bytes())
    (place / "scripts" / "image" / "__init__.py").touch()
    (place / "scripts" / "image" / "__main__.py").write_text(_BUILD.format(tells=tells))
    who = ("-c", "user.name=x", "-c", "user.email=x@localhost")
    for words in (("init", "--quiet"), ("add", "."), (*who, "commit", "--quiet", "--message=x")):
        subprocess.run(["git", *words], cwd=place, check=True)
    return place


@pytest.fixture
def cargo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cargo" / "registry" / "cache").mkdir(parents=True)
    (tmp_path / "cargo" / "registry" / "cache" / "a.crate").write_text("a")
    (tmp_path / "cargo" / "registry" / "src").mkdir()
    monkeypatch.setenv("CARGO_HOME", str(tmp_path / "cargo"))


@pytest.mark.usefixtures("cargo")
def test_builds_that_are_the_same_have_one_digest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clone = _clone(tmp_path / "clone", "'nothing'")
    (clone / "scripts" / "image" / "__main__.py").write_text("not committed, so it does not count")
    digest = twice.make_twice(clone, "--current")
    told = capsys.readouterr().out.splitlines()
    assert digest.startswith("sha256:") and [line.split()[0] for line in told] == [digest, digest]
    assert len({line.split("folder=")[1].split(",")[0] for line in told}) == 2


@pytest.mark.usefixtures("cargo")
@pytest.mark.parametrize(
    "tells", ["str(here)", "os.environ['CARGO_HOME']", "os.environ['TZ']", "os.environ['LC_ALL']", "oct(os.umask(0))"]
)
def test_build_that_tells_where_it_was_made_is_refused(tmp_path: Path, tells: str) -> None:
    clone = _clone(tmp_path / "clone", tells)
    with pytest.raises(ImageError, match=r"differ, find what brought the difference in: files=\['\(layer 0\)', 'at'\]"):
        twice.make_twice(clone, "--current")


@pytest.mark.usefixtures("cargo")
def test_build_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=f"{sys.executable} cannot: .*no such package"):
        twice.make_twice(_clone(tmp_path / "clone", "sys.exit('no such package')"), "--current")
