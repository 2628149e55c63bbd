"""The command line as its users run it: a process of its own, a repository in a folder, and an exit code for each real cause.

Every code of the table is produced here by what produces it in life. Over 500 lines because all cases share one way of running the program.

Does not know the engine but through the commands.
"""

from __future__ import annotations

import ctypes
import http.server
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.engine.conftest import assert_same
from tests.oracle.compare import compare
from tests.oracle.make_tree import make_tree, remove_tree
from tests.support.lacking import lacks

PROGRAM = [sys.executable, "-c", "import sys; from longshore.cli.main import main; sys.exit(main())"]
PACKAGES = str(Path(__file__).parents[2] / "python")
PATIENCE_SECONDS = 120
MIB = 1 << 20


@dataclass
class Commands:
    """Runs commands on one repository, away from the user's own settings."""

    root: Path
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def repository(self) -> Path:
        return self.root / "repository"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LONGSHORE_", "AWS_"))}
        ours = {
            "PYTHONPATH": PACKAGES,
            "LONGSHORE_REPOSITORY": str(self.repository),
            "LONGSHORE_KEY_FILE": str(self.root / "key"),
            "LONGSHORE_CACHE_DIR": str(self.root / "cache"),
        }
        return {name: value for name, value in {**kept, **ours, **self.variables}.items() if value}

    def run(self, *words: str | Path, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        answer = subprocess.run(
            [*PROGRAM, *map(str, words)],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=PATIENCE_SECONDS,
            **options,
        )
        assert answer.returncode == code, f"{words}\n{answer.stdout}\n{answer.stderr}"
        assert "Traceback" not in answer.stderr
        if code not in {0, 3, 4}:
            assert answer.stderr.count("error: ") == 1, answer.stderr
        return answer

    def json(self, *words: str | Path, code: int = 0, **options: Any) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.run(*words, "--json", code=code, **options).stdout.splitlines()]
        assert {line["type"] for line in lines} <= {"progress", "item", "row", "error", "summary"}
        assert [line["type"] for line in lines].count("summary") == 1
        assert lines[-1]["type"] == "summary"
        assert lines[-1]["exit_code"] == code
        return lines

    def objects(self) -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in sorted(self.repository.rglob("*")) if p.is_file()}


@pytest.fixture
def empty(tmp_path: Path) -> Commands:
    return Commands(tmp_path)


@pytest.fixture
def made(empty: Commands) -> Commands:
    empty.run("repo", "init")
    return empty


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    (folder / "etc").mkdir(parents=True)
    (folder / "etc" / "a.conf").write_text("a")
    (folder / "data").write_bytes(os.urandom(3 * MIB))
    (folder / "link").symlink_to("data")
    Path(os.fsdecode(os.fsencode(folder) + b"/odd\xff\x1b[31m")).write_text("odd")
    return folder


# --- the way out and back -------------------------------------------------------------------------------------------------------


def test_out_and_back(made: Commands, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    make_tree(tree)
    try:
        first = made.json("volume", "backup", tree, "--tag", "app=db")[-1]
        again = made.json("volume", "backup", tree)[-1]
        assert first["files_new"] == first["files_total"] == again["files_unchanged"]
        assert again["bytes_read"] == again["bytes_stored"] == 0
        assert again["parent_id"] == first["snapshot_id"]
        made.run("volume", "restore", first["snapshot_id"][:14], tmp_path / "out")
        assert_same(tree, tmp_path / "out")
    finally:
        remove_tree(tree)
        remove_tree(tmp_path / "out")


def test_restore_into_what_is_there(made: Commands, volume: Path, tmp_path: Path) -> None:
    made.run("volume", "backup", volume)
    target = tmp_path / "target"
    (target / "etc").mkdir(parents=True)
    (target / "etc" / "a.conf").write_text("other")
    (target / "mine").write_text("mine")
    dry = made.json("volume", "restore", "latest", target, "--dry-run", "--delete")[-1]
    assert dry["dry_run"]
    assert "is not told" in made.run("volume", "restore", "latest", target, "--dry-run", "--delete").stderr
    assert "is not told" not in made.run("volume", "restore", "latest", target, "--dry-run").stderr
    assert sorted(os.listdir(target)) == ["etc", "mine"]
    assert (target / "etc" / "a.conf").read_text() == "other"
    made.run("volume", "restore", "latest", target)
    assert (target / "etc" / "a.conf").read_text() == "a"
    assert (target / "mine").read_text() == "mine"
    deleted = made.json("volume", "restore", "latest", target, "--delete")[-1]
    assert deleted["extra_deleted"] == 1
    assert_same(volume, target)
    made.run("volume", "restore", "latest:etc", tmp_path / "part")
    assert os.listdir(tmp_path / "part") == ["a.conf"]


def test_listing_shows_names_safely_to_people_and_whole_to_programs(made: Commands, volume: Path) -> None:
    made.run("volume", "backup", volume)
    shown = made.run("volume", "ls", "latest", "-R").stdout.splitlines()
    assert sorted(shown) == ["data", "etc/", "etc/a.conf", "link", "odd\\xff\\x1b[31m"]
    long = made.run("volume", "ls", "latest", "-l").stdout.splitlines()
    assert any(line.startswith("lrwxrwxrwx") and line.endswith("link -> data") for line in long)
    rows = made.json("volume", "ls", "latest")
    assert {"b2Rk/xtbMzFt"} == {row["path_base64"] for row in rows if "path_base64" in row}
    assert [row["path"] for row in made.json("volume", "find", "latest", "*.conf") if row["type"] == "row"] == [
        "etc/a.conf"
    ]
    assert made.run("volume", "find", "latest", "/etc/*").stdout == "etc/a.conf\n"
    assert made.run("volume", "ls", "latest:etc/a.conf").stdout == "etc/a.conf\n"


def test_what_is_left_out(made: Commands, volume: Path, tmp_path: Path) -> None:
    patterns = tmp_path / "patterns"
    patterns.write_text("# none of these\n/etc\n")
    made.run("volume", "backup", volume, "--exclude", "odd*", "--exclude-file", patterns)
    assert made.run("volume", "ls", "latest", "-R").stdout.split() == ["data", "link"]
    before = made.objects()
    dry = made.json("volume", "backup", volume, "--dry-run")[-1]
    assert dry["snapshot_id"] is None
    assert {name for name in made.objects() if "/packs/" in name} == {name for name in before if "/packs/" in name}


def test_repository_inside_the_volume_is_left_out_and_never_restored_over(tmp_path: Path) -> None:
    inside = Commands(tmp_path / "home")
    inside.root.mkdir()
    (inside.root / "file").write_text("x")
    inside.variables = {"LONGSHORE_REPOSITORY": str(inside.root / "odd[1]")}
    inside.run("repo", "init")
    answer = inside.run("volume", "backup", inside.root)
    assert "lies inside" in answer.stderr
    assert inside.run("volume", "ls", "latest").stdout.split() == ["file", "key"]
    objects = sum(1 for _ in (inside.root / "odd[1]").rglob("*"))
    inside.run("volume", "restore", "latest", inside.root, "--delete", code=2)
    inside.run("volume", "restore", "latest", inside.root / "odd[1]" / "deeper", code=2)
    assert sum(1 for _ in (inside.root / "odd[1]").rglob("*")) == objects


# --- repositories and keys ------------------------------------------------------------------------------------------------------


def test_init_writes_a_key_once_and_never_a_second(empty: Commands, tmp_path: Path) -> None:
    answer = empty.run("repo", "init")
    key = (tmp_path / "key").read_text()
    assert re.fullmatch(r"longshore-key-1:[0-9a-f]{64}\n", key)
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert "safe" in answer.stdout
    assert "version 1" in answer.stdout
    before = empty.objects()
    empty.run("repo", "init", code=1)
    empty.run("repo", "init", "--key-file", tmp_path / "second", code=1)
    assert not (tmp_path / "second").exists()
    assert (tmp_path / "key").read_text() == key
    assert empty.objects() == before
    # A key that is there is used.
    empty.run("repo", "init", "--repository", tmp_path / "other")
    assert (tmp_path / "key").read_text() == key
    empty.run("volume", "list", "--repository", f"file://{tmp_path}/other")


def test_init_needs_a_key(empty: Commands) -> None:
    empty.variables = {"LONGSHORE_KEY_FILE": ""}
    empty.run("repo", "init", code=2)
    assert not empty.repository.exists()


def test_keys_come_and_go(made: Commands, volume: Path, tmp_path: Path) -> None:
    made.run("volume", "backup", volume)
    exported, passphrase = tmp_path / "exported", tmp_path / "passphrase"
    made.run("repo", "key", "export", exported)
    before = exported.read_text()
    made.run("repo", "key", "export", exported, code=1)
    assert exported.read_text() == before
    made.run("volume", "list", "--key-file", exported)
    passphrase.write_text("correct horse\n")
    made.run("repo", "key", "add", "--new-passphrase-file", passphrase, "--label", "people")
    made.run("volume", "list", "--passphrase-file", passphrase)
    made.variables = {"LONGSHORE_KEY_FILE": "", "LONGSHORE_PASSPHRASE": "correct horse"}
    made.run("volume", "list")
    made.variables = {}
    slots = {row["label"]: row for row in made.json("repo", "key", "list") if row["type"] == "row"}
    assert {label: row["kind"] for label, row in slots.items()} == {
        "": "key",
        "exported": "key",
        "people": "passphrase",
    }
    made.run("repo", "key", "remove", slots["exported"]["name"], code=2)
    made.run("repo", "key", "remove", slots["exported"]["name"][:12], "--yes")
    made.run("volume", "list", "--key-file", exported, code=12)
    made.run("repo", "key", "remove", slots["people"]["name"], "--yes")
    made.run("repo", "key", "remove", slots[""]["name"], "--yes", code=2)
    made.run("repo", "key", "import", exported)
    made.run("volume", "restore", "latest", tmp_path / "out", "--key-file", exported)
    assert_same(volume, tmp_path / "out")


def test_deleting_asks_and_deletes_all_or_nothing(made: Commands, volume: Path) -> None:
    one, two = (made.json("volume", "backup", volume)[-1]["snapshot_id"] for _ in range(2))
    made.run("volume", "delete", one, code=2)
    made.run("volume", "delete", one, "ls0-00000000", "--yes", code=13)
    assert made.json("volume", "list")[-1]["snapshots"] == 2
    made.run("volume", "delete", one, "--yes")
    assert [row["snapshot_id"] for row in made.json("volume", "list") if row["type"] == "row"] == [two]


def test_status_and_checks(made: Commands, volume: Path) -> None:
    made.run("volume", "backup", volume)
    assert made.json("repo", "status")[-1]["snapshots"] == 1
    assert "one key alone" in made.run("repo", "status").stderr
    assert made.json("repo", "check")[-1]["errors"] == 0
    assert made.json("repo", "check", "--read-data")[-1]["bytes_read"] > 3 * MIB
    assert made.json("volume", "verify", "latest")[-1]["errors"] == 0


def test_lists_as_documents(made: Commands, volume: Path) -> None:
    made.run("volume", "backup", volume, "--volume", "db", "--tag", "a=b")
    row = next(line for line in made.json("volume", "list") if line.pop("type") == "row")
    assert json.loads(made.run("volume", "list", "-o", "json").stdout) == [row]
    assert "source: db" in made.run("volume", "list", "-o", "yaml").stdout
    assert "a=b" in made.run("volume", "list").stdout
    assert made.run("volume", "backup", volume, "--quiet").stdout.startswith("ls0-")


# --- exit codes -----------------------------------------------------------------------------------------------------------------


def test_2_several_sources(made: Commands, volume: Path) -> None:
    for name in ("one", "two"):
        made.run("volume", "backup", volume, "--volume", name)
    answer = made.run("volume", "ls", "latest", code=2)
    assert "one" in answer.stderr
    assert "two" in answer.stderr
    assert "--source" in answer.stderr
    made.run("volume", "ls", "latest", "--source", "two")


def _without_rights() -> None:
    """Take from root what lets it read every file."""
    libc = ctypes.CDLL(None)
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        libc.prctl(24, capability, 0, 0, 0)  # PR_CAPBSET_DROP


def test_3_unreadable_file_is_named_and_the_rest_is_saved(made: Commands, volume: Path, tmp_path: Path) -> None:
    (volume / "secret").write_text("x")
    (volume / "secret").chmod(0)
    lines = made.json("volume", "backup", volume, code=3, preexec_fn=_without_rights)
    assert [line["path"] for line in lines if line["type"] == "item"] == ["secret"]
    assert lines[-1]["items_lost"] == 1
    assert lines[-1]["lost"][0]["path"] == "secret"
    answer = made.run("volume", "backup", volume, code=3, preexec_fn=_without_rights)
    assert "not captured: 1 item\n  secret: " in answer.stderr
    assert "WITHOUT 1 item" in answer.stdout
    made.run("volume", "restore", "latest", tmp_path / "out")
    assert (tmp_path / "out" / "etc" / "a.conf").read_text() == "a"


def test_4_damaged_pack_is_found_and_what_it_hurts_is_named(made: Commands, volume: Path, tmp_path: Path) -> None:
    made.run("volume", "backup", volume)
    pack = max((made.repository / "packs").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(content)
    lines = made.json("repo", "check", "--read-data", code=4)
    assert any(line.get("event") == "finding" and line["severity"] == "error" for line in lines)
    lines = made.json("volume", "verify", "latest", code=4)
    assert any(line.get("event") == "hurt" and line["path"] == "data" for line in lines)
    lines = made.json("volume", "restore", "latest", tmp_path / "out", code=4)
    assert [line["path"] for line in lines if line.get("event") == "lost"] == ["data"]
    assert not (tmp_path / "out" / "data").exists()
    assert (tmp_path / "out" / "etc" / "a.conf").read_text() == "a"


def test_10_no_repository(made: Commands, tmp_path: Path) -> None:
    lines = made.json("volume", "list", "--repository", tmp_path / "nowhere", code=10)
    assert lines[0]["code"] == "repository_not_found"
    assert lines[0]["next_step"]
    assert not (tmp_path / "nowhere").exists()


def test_12_wrong_key(made: Commands, tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text("longshore-key-1:" + "ab" * 32 + "\n")
    answer = made.run("volume", "list", "--key-file", tmp_path / "wrong", code=12)
    assert "ab" * 32 not in answer.stderr


def test_13_no_such_snapshot_or_path(made: Commands, volume: Path, tmp_path: Path) -> None:
    made.run("volume", "ls", "latest", code=13)
    made.run("volume", "backup", volume)
    made.run("volume", "show", "ls0-0123", code=13)
    made.run("volume", "ls", "latest:absent", code=13)
    made.run("volume", "restore", "latest:absent", tmp_path / "out", code=13)


def test_14_newer_format(made: Commands) -> None:
    config = next(path for path in made.repository.rglob("*") if path.is_file() and "config" in str(path))
    content = bytearray(config.read_bytes())
    # docs/format.md: eight bytes of magic, the object's type, then the version of its format.
    content[9] = 77
    config.chmod(0o600)
    config.write_bytes(content)
    made.run("volume", "list", code=14)


class _Refusing(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815 - the parent's names

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def refusing() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def test_15_store_refuses(made: Commands, refusing: int, tmp_path: Path) -> None:
    made.variables = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{refusing}",
        "AWS_ACCESS_KEY_ID": "AKIDAKIDAKIDAKID",
        "AWS_SECRET_ACCESS_KEY": "very-secret-very-secret",
        "AWS_REGION": "us-east-1",
    }
    answer = made.run("volume", "list", "--repository", "s3://bucket/prefix", code=15)
    assert "very-secret" not in answer.stderr
    # Whether a repository is there is not known: no new key is left behind.
    made.run("repo", "init", "--repository", "s3://bucket/prefix", "--key-file", tmp_path / "new", code=15)
    assert not (tmp_path / "new").exists()


def test_15_no_place_has_credentials(made: Commands) -> None:
    made.variables = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "us-east-1"}
    answer = made.run("volume", "list", "--repository", "s3://bucket/prefix", code=15)
    assert "no credentials were found" in answer.stderr and "AWS_ACCESS_KEY_ID" in answer.stderr
    assert "next:" in answer.stderr


def in_a_mount_namespace(script: str, *words: str) -> list[str]:
    """Give the command that runs a script, with the program as its arguments, where what it mounts is its own; skip where nobody may mount, but not in CI."""
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--user", "--map-root-user"]
    tried = subprocess.run([*unshare, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
    if tried.returncode:
        lacks("this machine lets nobody mount in a namespace of their own")
    return [*unshare, "bash", "-euc", script, "bash", *(words or PROGRAM)]


def test_16_no_space(empty: Commands, volume: Path, tmp_path: Path) -> None:
    """On a filesystem of five mebibytes: the volume goes in once, more of it does not, and what was stored is as good as before."""
    disk, more, back = tmp_path / "disk", tmp_path / "more", tmp_path / "back"
    disk.mkdir()
    more.mkdir()
    (more / "data").write_bytes(os.urandom(3 * MIB))
    empty.variables = {"LONGSHORE_REPOSITORY": str(disk / "repository")}
    script = f"""
    mount -t tmpfs -o size=5m tmpfs "{disk}"
    "$@" repo init
    "$@" volume backup "{volume}"
    code=0
    "$@" volume backup "{more}" || code=$?
    echo "ended with $code" >&2
    "$@" volume list --json
    "$@" repo check --read-data
    "$@" volume restore latest "{back}"
    """
    answer = subprocess.run(
        in_a_mount_namespace(script),
        env=empty.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert answer.returncode == 0, answer.stderr
    assert "ended with 16\n" in answer.stderr and answer.stderr.count("error: ") == 1, answer.stderr
    told = answer.stderr.partition("error: ")[2].partition("ended with")[0]
    assert "next: " in told and str(disk) in told, told
    assert "Traceback" not in answer.stderr
    assert sum('"type":"row"' in line.replace(" ", "") for line in answer.stdout.splitlines()) == 1, answer.stdout
    assert compare(volume, back) == []


def test_one_file_system_keeps_a_mount_point_and_leaves_what_is_mounted(made: Commands, volume: Path) -> None:
    """A filesystem mounted in the volume, in a mount namespace of the command's own."""
    inside = volume / "etc" / "mounted"
    inside.mkdir()
    mount = f'mount -t tmpfs tmpfs "{inside}" && echo there > "{inside}/file" && exec "$@"'

    def backed_up(*flags: str) -> tuple[str, set[str]]:
        words = [*PROGRAM, "volume", "backup", str(volume), "--volume", "v", "--json", *flags]
        answer = subprocess.run(
            in_a_mount_namespace(mount, *words),
            env=made.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
        assert answer.returncode == 0, answer.stderr
        snapshot = json.loads(answer.stdout.splitlines()[-1])["snapshot_id"]
        rows = made.json("volume", "ls", f"{snapshot}:etc", "--recursive")
        return snapshot, {row["path"] for row in rows if row["type"] == "row"}

    outside = {"etc/a.conf", "etc/mounted"}
    everything, alone = outside | {"etc/mounted/file"}, made.root / "alone"
    assert backed_up()[1] == everything
    snapshot, paths = backed_up("--one-file-system")
    assert paths == outside
    made.run("volume", "restore", snapshot, alone)
    assert list((alone / "etc" / "mounted").iterdir()) == [], "the mount point is there, and empty"
    # What was left out is no longer in the parent: without the flag it is there again.
    assert backed_up()[1] == everything
    assert backed_up("-x")[1] == outside


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_130_a_signal_cancels_the_backup(made: Commands, tmp_path: Path, number: int) -> None:
    source = tmp_path / "large"
    source.mkdir()
    for at in range(16):
        with (source / f"file{at}").open("wb") as file:
            for _ in range(16):
                file.write(os.urandom(MIB))
    process = subprocess.Popen(
        [*PROGRAM, "volume", "backup", source, "--json", "--workers", "1", "--compression", "19"],
        env=made.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert first["type"] == "progress"
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130, err
    assert "cancelling" in err
    assert json.loads(out.splitlines()[-1]) == {"type": "summary", "exit_code": 130}
    assert made.json("volume", "list")[-1]["snapshots"] == 0


def test_a_terminal_sees_a_bar_and_then_none(made: Commands, tmp_path: Path) -> None:
    source = tmp_path / "large"
    source.mkdir()
    (source / "file").write_bytes(os.urandom(48 * MIB))
    child, terminal = pty.fork()
    if child == 0:
        os.execve(
            sys.executable,
            [*PROGRAM, "volume", "backup", str(source)],
            {**made.environment, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"},
        )
    shown, deadline = b"", time.monotonic() + PATIENCE_SECONDS
    # Not select, which refuses descriptors from 1,024 on: a worker that ran a thousand tests may have as many.
    waiting = select.poll()
    waiting.register(terminal, select.POLLIN)
    while time.monotonic() < deadline:
        if not waiting.poll(1000):
            continue
        try:
            part = os.read(terminal, 65536)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    text = shown.decode()
    assert "Backing up" in text
    assert "\u2501" in text
    assert "\x1b[?25l" in text
    assert text.index("\x1b[?25h") < text.index(" saved")
    assert "Next:" in text


def test_a_pipe_sees_no_escape(made: Commands, volume: Path) -> None:
    answer = made.run("volume", "backup", volume)
    assert "\x1b" not in answer.stdout + answer.stderr


# --- docs/reference/json.md -----------------------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "json.md"
# Sections that say that they are for other commands, too.
SAME = {
    "volume find: row": "volume ls: row",
    "repo key export: summary": "repo key add: summary",
    "repo key import: summary": "repo key add: summary",
}


def _documented() -> dict[str, set[str]]:
    """Give the fields that the page lists, by heading."""
    found: dict[str, set[str]] = {}
    for section in PAGE.read_text().split("\n## ")[1:]:
        heading, _, body = section.partition("\n")
        found[heading] = {line.split("`")[1] for line in body.splitlines() if line.startswith("| `")}
    found["volume show: summary"] = found["volume list: row"] | {"exit_code"}
    return {**found, **{name: found[same] for name, same in SAME.items()}}


def test_every_json_field_is_documented_and_every_documented_field_is_there(
    made: Commands, volume: Path, tmp_path: Path
) -> None:
    documented = _documented()
    seen: dict[str, set[str]] = {}

    def look(command: str, *words: str | Path, code: int = 0, **options: Any) -> dict[str, Any]:
        lines = made.json(*command.split(), *words, code=code, **options)
        for line in lines:
            kind = line.pop("type")
            heading = kind if kind in {"progress", "item", "error"} else f"{command}: {kind}"
            if "error" not in seen or kind != "summary" or len(line) > 1:
                seen.setdefault(heading, set()).update(line)
        return lines[-1]

    odd = volume / "fifo"
    os.mkfifo(odd)
    os.setxattr(volume / "data", "user.\u00e4", b"1")
    made.repository.rename(tmp_path / "away")
    look("repo init")
    snapshot = look("volume backup", volume)["snapshot_id"]
    os.symlink(b"to\xff", os.fsencode(volume) + b"/odd-link")
    secret = Path(os.fsdecode(os.fsencode(volume) + b"/secret\xff"))
    secret.write_text("x")
    secret.chmod(0)
    look("volume backup", volume, "--volume", "v", code=3, preexec_fn=_without_rights)
    for command in ("list", "ls latest --source v", "find latest * --source v", "show latest --source v"):
        name, *words = command.split()
        look(f"volume {name}", *words)
    odd_path = f"{snapshot}:" + os.fsdecode(b"odd\xff\x1b[31m")
    look("volume restore", snapshot, tmp_path / "out")
    look("volume restore", odd_path, os.fsdecode(os.fsencode(tmp_path) + b"/out\xff"))
    look("volume verify", snapshot)
    look("repo status")
    look("repo check", "--read-data")
    look("repo prune", "--keep-last", "5", "--dry-run")
    look("repo key list")
    look("repo key export", tmp_path / "k1")
    slot = look("repo key add", "--new-key-file", tmp_path / "k2")["slot"]
    look("repo key import", tmp_path / "key")
    look("repo key remove", slot, "--yes")
    look("version")
    pack = max(
        (path for path in (made.repository / "packs").rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )
    pack.rename(tmp_path / "pack")
    look("volume verify", snapshot, code=4)
    look("repo repair", code=4)
    look("volume delete", snapshot, "--yes")
    look("volume list", "--repository", tmp_path / "nowhere", code=10)

    unknown = {heading: fields - documented.get(heading, set()) for heading, fields in seen.items()}
    assert {heading: fields for heading, fields in unknown.items() if fields} == {}
    # A device needs rights that a test may not have.
    missing = {heading: fields - seen.get(heading, set()) - {"device"} for heading, fields in documented.items()}
    missing["volume list: row"] -= {"path_base64"}
    missing["volume show: summary"] -= {"path_base64"}
    assert {heading: fields for heading, fields in missing.items() if fields} == {}
