"""Every flag of the commands that run jobs reaches the data path, and changes there what it says and nothing else.

The tables name all flags of each command: a flag that is added later and stands in none of them fails, and so does one that no longer does anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from longshore import datapath
from longshore.cli.main import main
from longshore.cli.repo import check, prune, repair
from longshore.cli.volume import backup, restore, verify
from longshore.errors import NoSpaceError

ID = "ls0-" + "1" * 32
SESSION = "5" * 32

TABLE: dict[str, dict[str, tuple[list[str], dict[str, object]]]] = {
    "volume backup": {
        "--volume": (["NAME"], {"source": "NAME"}),
        "--exclude": (["*.tmp"], {"excludes": ["*.tmp"]}),
        "--exclude-file": (["patterns"], {"excludes": ["/var", "*.log"]}),
        "--one-file-system": ([], {"one_file_system": True}),
        "--tag": (["a=b"], {"tags": {"a": "b"}}),
        "--parent": (["1111"], {"parent": ID}),
        "--parent none": (["none"], {"parent": "none"}),
        "--hints": (["hints"], {"hints": "read"}),
        "--dry-run": ([], {"dry_run": True}),
        "--strict": ([], {"strict": True}),
        "--paranoid": ([], {"paranoid": True}),
        "--compression": (["7"], {"compression": 7}),
        "--memory-limit": (["512MiB"], {"memory_limit_bytes": 512 << 20}),
        "--workers": (["3"], {"workers": 3}),
        "--verify-upload": (["header"], {"verify_upload": "header"}),
    },
    "volume restore": {
        "--delete": ([], {"delete_extra": True}),
        "--source": (["NAME"], {"found_with": ("latest", "NAME")}),
        "--dry-run": ([], {"dry_run": True}),
        "--keep-damaged": ([], {"keep_damaged": True}),
        "--trust-times": ([], {"trust_times": True}),
        "--workers": (["3"], {"workers": 3}),
        "--memory-limit": (["512MiB"], {"memory_limit_bytes": 512 << 20}),
    },
    "volume verify": {
        "--source": (["NAME"], {"found_with": ("latest", "NAME")}),
        "--tags-only": ([], {"tags_only": True}),
        "--sample": (["5%", "--part", "3"], {"share": (3, 20)}),
        "--part": (["3", "--sample", "5%"], {"share": (3, 20)}),
        "--fresh": ([], {"fresh": True}),
    },
    "repo check": {
        "--read-data": ([], {"read_data": True}),
        "--sample": (["5%", "--part", "3"], {"share": (3, 20)}),
        "--part": (["3", "--sample", "5%"], {"share": (3, 20)}),
        "--fresh": ([], {"fresh": True}),
    },
    "repo prune": {
        "--keep-last": (["1"], {"policy": {"last": 1}}),
        "--keep-hourly": (["2"], {"policy": {"hourly": 2}}),
        "--keep-daily": (["3"], {"policy": {"daily": 3}}),
        "--keep-weekly": (["4"], {"policy": {"weekly": 4}}),
        "--keep-monthly": (["5"], {"policy": {"monthly": 5}}),
        "--keep-yearly": (["6"], {"policy": {"yearly": 6}}),
        "--keep-within": (["7d"], {"policy": {"within": datapath.parse_span("7d")}}),
        "--keep-tag": (["a"], {"policy": {"tags": ("a",)}}),
        "--dry-run": ([], {"dry_run": True}),
        "--max-repack": (["1GiB"], {"max_repack_bytes": 1 << 30}),
        "--fence": ([SESSION], {"fence": [SESSION]}),
        "--fence all": (["all"], {"fence_now": True}),
        "--fence-after": (["3d"], {"fence_after_seconds": 259_200}),
        "--allow-empty": ([], {"allow_empty": True}),
    },
    "repo repair": {
        "--read-data": ([], {"read_data": True}),
        "--dry-run": ([], {"dry_run": True}),
        "--fresh": ([], {"fresh": True}),
    },
}
COMMANDS: dict[str, tuple[click.Command, list[str]]] = {
    "volume backup": (backup.command, ["folder"]),
    "volume restore": (restore.command, ["latest", "target"]),
    "volume verify": (verify.command, ["latest"]),
    "repo check": (check.command, []),
    "repo prune": (prune.command, []),
    "repo repair": (repair.command, []),
}
# Which repository, with which key and cache, how it is shown, how fast: the same for all commands, and tested where they are made.
ELSEWHERE = {
    "--cache-dir",
    "--cache-limit",
    "--ionice",
    "--json",
    "--key-file",
    "--limit-download",
    "--limit-requests",
    "--limit-upload",
    "--log-format",
    "--log-level",
    "--nice",
    "--passphrase-file",
    "--quiet",
    "--repository",
}


@dataclass
class Asked:
    """A repository that notes what it is asked for, and ends the command there."""

    said: dict[str, object]

    def find(self, wanted: str, *, source: str | None = None) -> SimpleNamespace:
        if source is not None and wanted == "latest":
            self.said["found_with"] = (wanted, source)
        return SimpleNamespace(id=ID)

    def snapshots(self) -> SimpleNamespace:
        return SimpleNamespace(rows=[])

    def _note(self, options: object) -> None:
        assert dataclasses.is_dataclass(options)
        self.said |= {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
        raise NoSpaceError("that is enough")

    backup = restore = prune = repair = _note

    def check(self, **words: object) -> None:
        self.said |= words
        raise NoSpaceError("that is enough")

    def verify(self, snapshot_id: str, **words: object) -> None:
        assert snapshot_id == ID
        self.check(**words)


@pytest.fixture
def ask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., dict[str, object]]:
    (tmp_path / "key").write_text("longshore-key-1:" + "0" * 64 + "\n")
    (tmp_path / "folder").mkdir()
    (tmp_path / "patterns").write_text("# of files\n/var\n *.log \n")
    (tmp_path / "hints").write_text("")
    monkeypatch.chdir(tmp_path)

    def run(name: str, *words: str) -> dict[str, object]:
        said: dict[str, object] = {}

        def judge(_rows: object, policy: datapath.Policy, *, now: datetime) -> list[object]:
            said["policy"] = {
                field.name: getattr(policy, field.name)
                for field in dataclasses.fields(policy)
                if getattr(policy, field.name) != field.default
            }
            return []

        monkeypatch.setattr(datapath, "open", lambda *_args, **_options: Asked(said))
        monkeypatch.setattr(datapath, "judge", judge)
        monkeypatch.setattr("longshore.cli.hints.read_hints", lambda _file, warn: "read")
        common = ["--repository", str(tmp_path / "repository"), "--key-file", str(tmp_path / "key")]
        code = main([*name.split(), *COMMANDS[name][1], *common, *words])
        assert code == NoSpaceError.exit_code, capsys.readouterr().err
        return said

    return run


@pytest.mark.parametrize(("name", "flag"), [(name, flag) for name, flags in TABLE.items() for flag in flags])
def test_a_flag_changes_what_it_says_and_nothing_else(
    ask: Callable[..., dict[str, object]], name: str, flag: str
) -> None:
    words, change = TABLE[name][flag]
    without, given = ask(name), ask(name, flag.partition(" ")[0], *words)
    assert {key: value for key, value in given.items() if key not in without or without[key] != value} == change
    assert set(without) <= set(given)


@pytest.mark.parametrize("name", TABLE)
def test_the_table_names_every_flag(name: str) -> None:
    command, _ = COMMANDS[name]
    flags = {max(param.opts, key=len) for param in command.params if isinstance(param, click.Option)}
    named = {flag.partition(" ")[0] for flag in TABLE[name]}
    assert flags - ELSEWHERE == named


def test_the_list_of_flags_from_elsewhere_names_what_there_is() -> None:
    flags = {
        max(param.opts, key=len)
        for command, _ in COMMANDS.values()
        for param in command.params
        if isinstance(param, click.Option)
    }
    assert flags >= ELSEWHERE
