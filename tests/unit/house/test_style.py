"""One style for logs, errors and openings in both languages, and one set of things that no file says.

Each rule is applied to the tree, and shown beside it to catch what was planted and to leave good text alone. Where a rule seems wrong for
a case, change the rule here with a planted example; there is no list of exempt places.
"""

from collections.abc import Iterator

import pytest
from tests.unit.house import file_style, python_style, rust_style
from tests.unit.house.tree import ROOT, Rule, files, judge, project_files, read

PYTHON = (".py",)
SOURCES = (".py", ".rs", ".sh", "Makefile", ".ci/run")
# Ciphertext and other people's bytes have no style.
_NO_TEXT = ("tests/golden/", "LICENSE")
# Lock files are written by tools: cargo names its registry in each entry. The Python one has no host by our choice, and is judged.
_WRITTEN_BY_TOOLS = ("Cargo.lock", "rust/fuzz/Cargo.lock")


def _judged(rule: Rule) -> Iterator[str]:
    """Say which files a rule is for."""
    match rule:
        case python_style.log_messages | python_style.error_texts:
            yield from files("python/longshore/", ending=PYTHON)
        case rust_style.log_messages | rust_style.error_texts:
            yield from files("rust/", ending=".rs")
        case file_style.has_opening | file_style.has_reason_for_length:
            yield from files(ending=SOURCES)
        case _:
            yield from (
                name for name in project_files() if not name.startswith(_NO_TEXT) and name not in _WRITTEN_BY_TOOLS
            )


RULES = [
    python_style.log_messages,
    python_style.error_texts,
    rust_style.log_messages,
    rust_style.error_texts,
    file_style.has_opening,
    file_style.has_reason_for_length,
    file_style.speaks_of_itself,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.__module__.rsplit('.', 1)[-1]}-{rule.__name__}")
def test_tree_keeps_rule(rule: Rule) -> None:
    names = list(_judged(rule))
    assert names
    assert not (trespasses := judge(rule, names)), "\n" + "\n".join(trespasses)


# A machine's folder, put together so that this file does not hold what it forbids.
_FOLDER = "/" + "root" + "/"

PLANTED = [
    (python_style.log_messages, 'log.info("accepted PodVolumeBackup", name=name)'),
    (python_style.log_messages, 'log.info("Accepted PodVolumeBackup.")'),
    (python_style.log_messages, 'self._log.warning(f"Lost {name}")'),
    (python_style.log_messages, 'logger.error("Lost %s", name)'),
    (python_style.log_messages, 'logger.error("Lost {}".format(name))'),
    (python_style.log_messages, 'log.bind(name=name).info("lost it")'),
    (python_style.log_messages, 'log.info("Lost {name}", name=name)'),
    (python_style.log_messages, 'log.info(event="Lost it")'),
    (python_style.log_messages, 'logging.info("lost it")'),
    (python_style.error_texts, 'raise NotReadyError("Volume is not mounted")'),
    (python_style.error_texts, 'raise NotReadyError("volume is not mounted.")'),
    (python_style.error_texts, 'raise NotReadyError(f"volume {volume} is not mounted")'),
    (python_style.error_texts, 'raise NotReadyError(f"{volume} is not mounted")'),
    (python_style.error_texts, 'return errors.NotReadyError(f"volume is not mounted: volume={volume}.")'),
    (python_style.error_texts, 'raise NotReadyError("volume is not mounted: " + volume)'),
    (python_style.error_texts, 'raise CorruptError(f"{what} {name} is cut short")'),
    (rust_style.log_messages, 'tracing::info!(pack = %id, "uploaded pack");'),
    (rust_style.log_messages, 'info!(pack = %id, "Uploaded pack.");'),
    (rust_style.log_messages, 'tracing::warn!("Lost {}", name);'),
    (rust_style.log_messages, 'tracing::warn!("Lost {name}");'),
    (rust_style.log_messages, "tracing::warn!(pack = %id);"),
    (rust_style.log_messages, 'tracing::error!(\n    a = f("x, y)"),\n    "lost it"\n);'),
    (rust_style.error_texts, '#[error("Pack is gone: pack={0}")]'),
    (rust_style.error_texts, '#[error("pack is gone: pack={0}.")]'),
    (rust_style.error_texts, '#[error("pack {0} is gone")]'),
    (rust_style.error_texts, '#[error("{pack} is gone")]'),
    (rust_style.error_texts, 'StoreError::corrupt("pack", "Header is short")'),
    (rust_style.error_texts, 'StoreError::corrupt("pack", format!("header of {n} bytes is short"))'),
    (file_style.has_opening, "import os\n"),
    (file_style.has_opening, "use std::io;\n//! Too late.\n"),
    (file_style.has_opening, "#!/usr/bin/env bash\nset -e\n"),
    (file_style.has_reason_for_length, '"""Holds much."""\n' + "x = 1\n" * 500),
    (file_style.has_reason_for_length, "//! Holds much.\n" + "// x\n" * 500),
    (file_style.speaks_of_itself, f"see {_FOLDER}notes.md"),
    (file_style.speaks_of_itself, "index = 'https://" + "pypi" + ".org/simple'"),
    (file_style.speaks_of_itself, "# see issue" + " #3"),
    (file_style.speaks_of_itself, "# left for the next " + "issue"),
]

KEPT = [
    (python_style.log_messages, 'log.info("Accepted PodVolumeBackup", name=name, namespace=namespace)'),
    (python_style.log_messages, 'math.log("x"); catalog.info("whatever.")'),
    (python_style.error_texts, 'raise NotReadyError(f"volume is not mounted: volume={volume}, seconds={n:.1f}")'),
    (
        python_style.error_texts,
        'raise InvalidError("PVC has no name"); raise KeyError(name); raise OSError(errno.EIO, "x")',
    ),
    (python_style.error_texts, 'raise UsageError(f"no such snapshot: {name!r} ({where})", "List snapshots first.")'),
    (python_style.error_texts, 'raise CorruptError(f"{what} is cut short: size_bytes={len(blob)}")'),
    (rust_style.log_messages, 'tracing::info!(pack = %id, note = "x.", "Uploaded pack");'),
    (rust_style.log_messages, '// info!("lost it")\nlet s = "x"; /* warn!("y") */'),
    (rust_style.error_texts, '#[error("{what} is too large: size={size}, limit={limit}")]'),
    (rust_style.error_texts, '#[error("S3 refused: {0}")] #[error(transparent)]'),
    (rust_style.error_texts, 'FormatError::corrupt("pack", format!("header is short: bytes={n}, store=memory"))'),
    (file_style.has_opening, '"""Holds one thing."""\n'),
    (file_style.has_opening, "//! Holds one thing.\n"),
    (file_style.has_opening, "#!/usr/bin/env bash\n# Does one thing.\nset -e\n"),
    (file_style.has_reason_for_length, '"""Holds much. Over 500 lines because it is one table."""\n' + "x = 1\n" * 500),
    (file_style.has_reason_for_length, '"""Holds little."""\n' + "x = 1\n" * 499),
    (file_style.speaks_of_itself, "cd target/work/x; https://github.com/rust-lang; issue a certificate"),
]


@pytest.mark.parametrize(("rule", "text"), PLANTED)
def test_rule_catches_trespass(rule: Rule, text: str) -> None:
    assert rule(text)


@pytest.mark.parametrize(("rule", "text"), KEPT)
def test_rule_leaves_good_text_alone(rule: Rule, text: str) -> None:
    assert rule(text) == []


def _unmentioned_rooms(architecture: str) -> list[str]:
    """List rooms that a page does not name: folders and modules of the package, and folders of rust, tests and benches."""
    rooms = set()
    for name in project_files():
        match name.split("/"):
            case ["python", "longshore", room, *_] if not room.startswith("__") and room != "py.typed":
                rooms.add(room.removesuffix(".pyi").removesuffix(".py"))
            case ["rust" | "tests" | "benches", room, _, *_]:
                rooms.add(room)
            case _:
                pass
    return sorted(room for room in rooms if room not in architecture)


def test_architecture_mentions_each_room() -> None:
    assert (ROOT / "ARCHITECTURE.md").is_file()
    assert _unmentioned_rooms(read("ARCHITECTURE.md")) == []


def test_missing_room_is_noticed() -> None:
    rooms = _unmentioned_rooms("")
    assert {"errors", "kube", "format", "unit"} <= set(rooms)
    assert _unmentioned_rooms(" ".join(room for room in rooms if room != "kube")) == ["kube"]


def test_tree_is_whole() -> None:
    assert (ROOT / "Makefile").is_file()
    assert "tests/unit/house/test_style.py" in project_files()
