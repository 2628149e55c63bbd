"""Data from seeds: the same seed gives the same tree, and a change touches what it says and no more."""

import os
import shutil
from pathlib import Path

import pytest
from benches.volume import data
from benches.volume.data import MIB


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of two roots, the second in the first."""
    root = tmp_path / "usr"
    for number in range(30):
        path = root / f"lib/d{number % 3}/f{number:02}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]) * (number * 100 + 1))
    (root / "lib/link").symlink_to("d0/f00")
    monkeypatch.setattr(data, "real_roots", lambda: [root, root / "lib"])
    return root


def tree(folder):
    return {
        str(path.relative_to(folder)): (
            path.lstat().st_mtime_ns,
            path.is_symlink() or path.is_dir() or path.read_bytes(),
        )
        for path in sorted(folder.rglob("*"))
    }


def test_real_tree_is_the_same_twice_and_takes_nothing_twice(machine, tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    assert data.real_tree(first, 1.0) == data.real_tree(second, 1.0)
    assert tree(first) == tree(second)
    assert sum(path.is_file() and not path.is_symlink() for path in first.rglob("*")) == 30
    assert (first / "0/lib/link").is_symlink()


def test_real_tree_stops_at_its_size(machine, tmp_path):
    made = data.real_tree(tmp_path / "a", 1.0, limit_bytes=5000)
    assert made.size_bytes <= 5000
    assert 1 < made.files < 30


def test_copies_differ_a_little_and_always_alike(machine, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        data.copies(tmp_path / name, 1.0)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    first, others = tree(tmp_path / "a/copy-0"), [tree(tmp_path / f"a/copy-{n}") for n in (1, 2, 3)]
    changed = [sum(first[name] != other[name] for name in first) for other in others]
    assert all(set(other) == set(first) for other in others)
    assert 0 < sum(changed) < len(first)


def test_one_percent_of_files_changes_with_its_round(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(2000):
            (tmp_path / name / f"{number:04}").write_bytes(b"x" * 100)
            os.utime(tmp_path / name / f"{number:04}", (1, 1))
    before = tree(tmp_path / "a")
    count = data.change_files(tmp_path / "a", 1)
    after = tree(tmp_path / "a")
    assert 5 < count < 60
    assert sum(before[name] != after[name] for name in before) == count
    assert data.change_files(tmp_path / "b", 1) == count
    assert tree(tmp_path / "b") == after
    data.change_files(tmp_path / "b", 2)
    assert tree(tmp_path / "b") != after


needs_maker = pytest.mark.skipif(
    not Path(data.program("make-data")[0]).exists(), reason="make-data is not built, run `make bench-tools`"
)


@needs_maker
@pytest.mark.parametrize("make", [data.small_files, data.incompressible, data.database_and_log, data.one_file])
def test_made_data_is_the_same_twice(make, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert make(tmp_path / "a", 0.0005) == make(tmp_path / "b", 0.0005)
    assert data.digest(tmp_path / "a") == data.digest(tmp_path / "b")


@needs_maker
def test_pages_change_in_place(tmp_path):
    data.database(tmp_path, 0.002)
    shutil.copytree(tmp_path, tmp_path / "copy")
    before = (tmp_path / "table.db").read_bytes()
    data.change_pages(tmp_path, 1)
    after = (tmp_path / "table.db").read_bytes()
    pages = [(before[at : at + 8192], after[at : at + 8192]) for at in range(0, len(before), 8192)]
    changed = sum(old != new for old, new in pages)
    assert len(after) == len(before) > 16 * MIB
    assert 0.005 < changed / len(pages) < 0.0101
    data.change_pages(tmp_path / "copy", 1)
    assert (tmp_path / "copy/table.db").read_bytes() == after
