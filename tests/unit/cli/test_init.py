"""A new key file is there before the repository, and goes again only where no repository can need it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from longshore import datapath
from longshore.cli.main import main
from longshore.errors import LongshoreError, RepositoryExistsError, StoreUnavailableError, WrongKeyError

AWAY = StoreUnavailableError("the store does not answer")


@pytest.mark.parametrize(
    ("failure", "exists_after", "open_after", "kept"),
    [
        # Someone else was faster: the repository has another key.
        (RepositoryExistsError("there is one"), True, WrongKeyError("another key"), False),
        # The answer was lost on its way; the repository may be ours.
        (AWAY, True, None, True),
        (AWAY, AWAY, None, True),
        (AWAY, True, AWAY, True),
        # Nothing was made.
        (AWAY, False, None, False),
        (ZeroDivisionError(), False, None, False),
    ],
)
def test_key_file_outlives_a_failure_when_it_may_be_needed(
    failure: BaseException,
    exists_after: bool | LongshoreError,
    open_after: LongshoreError | None,
    kept: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    key_file = tmp_path / "key"
    answers = iter([False, exists_after])

    def exists(_store: Any) -> bool:
        answer = next(answers)
        if isinstance(answer, LongshoreError):
            raise answer
        return answer

    def init(*_args: Any, **_kwargs: Any) -> None:
        assert key_file.read_text().startswith("longshore-key-1:")
        raise failure

    def reopen(*_args: Any, **_kwargs: Any) -> None:
        if open_after is not None:
            raise open_after

    monkeypatch.setattr(datapath, "exists", exists)
    monkeypatch.setattr(datapath, "init", init)
    monkeypatch.setattr(datapath, "open", reopen)
    assert main(["repo", "init", "-r", str(tmp_path / "r"), "--key-file", str(key_file)]) in {1, 15}
    assert key_file.exists() is kept
    assert ("the new key file stays" in capsys.readouterr().err) is kept
