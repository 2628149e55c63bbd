"""Looking into snapshots page by page, and checks of repositories that are whole and that are not."""

import os
from pathlib import Path

import pytest

from longshore.errors import SnapshotNotFoundError, UsageError
from tests.engine.conftest import Place, done


def walk(root: Path) -> list[bytes]:
    """List what is below a directory: names ascending by bytes, a directory before what is in it."""
    out: list[bytes] = []

    def go(path: bytes) -> None:
        for name in sorted(os.listdir(os.path.join(os.fsencode(root), path))):
            at = os.path.join(path, name)
            out.append(at)
            full = os.path.join(os.fsencode(root), at)
            if os.path.isdir(full) and not os.path.islink(full):
                go(at)

    go(b"")
    return out


@pytest.fixture
def shallow(tmp_path: Path) -> Path:
    """A volume of many names, some of them not UTF-8."""
    root = tmp_path / "shallow"
    for d in range(6):
        (root / f"d{d}").mkdir(parents=True)
        for f in range(30):
            (root / f"d{d}" / f"f{f}").write_bytes(b"x" * f)
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe")).write_bytes(b"bytes")
    (root / "link").symlink_to("d0/f1")
    os.link(root / "d0" / "f1", root / "d1" / "twin")
    return root


@pytest.mark.parametrize("limit", [1, 7, 64, 100_000])
def test_pages_give_every_entry_once(place: Place, shallow: Path, limit: int) -> None:
    snapshot_id = str(place.backup(shallow).snapshot_id)
    found: list[bytes] = []
    after = None
    while True:
        page = place.repository.entries(snapshot_id, recursive=True, after=after, limit=limit)
        assert len(page.rows) <= limit and page.damaged == []
        found += [row.path for row in page.rows]
        after = page.after
        if after is None:
            break
    assert found == walk(shallow)


def test_going_on_needs_no_memory_of_the_page_before(place: Place, shallow: Path) -> None:
    snapshot_id = str(place.backup(shallow).snapshot_id)
    page = place.repository.entries(snapshot_id, recursive=True, after=b"d1/f3", limit=3)
    assert [row.path for row in page.rows] == [b"d1/f4", b"d1/f5", b"d1/f6"]
    for _ in range(2):
        page = place.repository.entries(snapshot_id, recursive=True, after=b"d1/f6", limit=2)
        assert [row.path for row in page.rows] == [b"d1/f7", b"d1/f8"]
    with pytest.raises(UsageError):
        place.repository.entries(snapshot_id, recursive=True, after=b"none")
    with pytest.raises(UsageError):
        place.repository.entries(snapshot_id, limit=0)


def test_a_walk_that_is_let_go_leaves_no_marker(place: Place, shallow: Path) -> None:
    snapshot_id = str(place.backup(shallow).snapshot_id)
    for _ in range(10):
        assert place.repository.entries(snapshot_id, recursive=True, limit=5).after
    assert place.repository.entries(snapshot_id).after is None
    place.repository._listings.clear()
    assert not list((place.folder / "sessions").iterdir())


def test_entries_say_what_the_filesystem_says(place: Place, shallow: Path) -> None:
    snapshot_id = str(place.backup(shallow).snapshot_id)
    rows = {row.path: row for row in place.repository.entries(snapshot_id, recursive=True, limit=10_000).rows}
    for path, row in rows.items():
        said = os.lstat(os.path.join(os.fsencode(shallow), path))
        assert (row.mode, row.uid, row.gid, row.mtime_nanos, row.inode) == (
            said.st_mode & 0o7777, said.st_uid, said.st_gid, said.st_mtime_ns, said.st_ino,
        )  # fmt: skip
        assert row.size_bytes == (said.st_size if row.kind == "file" else 0)
        assert row.name == os.path.basename(path)
    assert (rows[b"link"].kind, rows[b"link"].target) == ("symlink", b"d0/f1")
    assert rows[b"d0/f1"].linked and rows[b"d1/twin"].linked and not rows[b"d0/f2"].linked
    assert {row.path for row in place.repository.entries(snapshot_id, b"d1/f2").rows} == {b"d1/f2"}
    with pytest.raises(SnapshotNotFoundError):
        place.repository.entries(snapshot_id, b"d1/none")


def test_a_whole_repository_checks_well(place: Place, small: Path) -> None:
    snapshot_id = str(place.backup(small).snapshot_id)
    for job in (
        place.repository.check(),
        place.repository.check(read_data=True),
        place.repository.verify(snapshot_id),
        place.repository.verify(snapshot_id, tags_only=True),
    ):
        result = done(job)
        assert (result.exit_code, result.errors, result.findings, result.hurt) == (0, 0, [], [])
        assert result.snapshots == 1
    assert done(place.repository.check()).frames_read == 0 < done(place.repository.check(read_data=True)).frames_read


# Not here: what is gone was never there (a slot, a snapshot) or costs only time (a segment); only its holder can tell a slot's flipped bit.
DAMAGE = [
    (folder, how)
    for folder, hows in {
        "packs": ("flip", "cut", "gone"),
        "index": ("flip", "cut"),
        "usage": ("flip", "cut", "gone"),
        "snapshots": ("flip", "cut"),
        "keys": ("cut",),
    }.items()
    for how in hows
]


@pytest.mark.parametrize(("folder", "how"), DAMAGE)
def test_damage_is_found_and_what_it_hurts_is_named(place: Place, small: Path, folder: str, how: str) -> None:
    snapshot_id = str(place.backup(small).snapshot_id)
    place.repository.add_slot(place.key, label="second")
    victim = max((place.folder / folder).iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(victim.read_bytes())
    victim.chmod(0o600)
    if how == "gone":
        victim.unlink()
    else:
        content[len(content) // 2] ^= 1
        victim.write_bytes(content if how == "flip" else content[: len(content) // 2])
    result = done(place.repository.check(read_data=True))
    assert result.exit_code == 4 and result.errors >= 1
    assert any(folder in finding.object for finding in result.findings if finding.severity == "error"), result.findings
    if folder == "packs":
        assert {item.snapshot_id for item in result.hurt} == {snapshot_id}
        assert any(snapshot_id in finding.snapshots for finding in result.findings)
        verified = done(place.repository.verify(snapshot_id))
        assert verified.exit_code == 4 and verified.hurt
    for finding in result.findings:
        assert finding.message and not finding.message.endswith(".")


def test_a_share_of_the_packs_can_be_read(place: Place, small: Path) -> None:
    place.backup(small)
    assert done(place.repository.check(read_percent=100)).frames_read > 0
    with pytest.raises(UsageError):
        place.repository.check(read_percent=101)
