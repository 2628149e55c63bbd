"""A new key file stays when its slot may have arrived: somebody may rely on that slot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from longshore import datapath
from longshore.cli.main import main
from longshore.cli.session import Session
from longshore.errors import StoreUnavailableError


class LosesAnswers:
    """A repository whose slot is made, or not, and whose answer never comes back."""

    def __init__(self, repository: datapath.Repository, *, arrives: bool) -> None:
        self._repository, self._arrives = repository, arrives

    def add_slot(self, key: datapath.Key, *, label: str) -> str:
        if self._arrives:
            self._repository.add_slot(key, label=label)
        raise StoreUnavailableError("the store does not answer")


@pytest.mark.parametrize("arrives", [True, False])
@pytest.mark.parametrize("words", [("export",), ("add", "--new-key-file")], ids=" ".join)
def test_a_new_key_file_stays_and_import_goes_on_with_it(
    words: tuple[str, ...],
    arrives: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    where = ["-r", str(tmp_path / "r"), "--key-file", str(first)]
    assert main(["repo", "init", *where]) == 0
    real = Session.open

    def opened(session: Session, *args: Any, **kwargs: Any) -> LosesAnswers:
        return LosesAnswers(real(session, *args, **kwargs), arrives=arrives)

    with monkeypatch.context() as patched:
        patched.setattr(Session, "open", opened)
        assert main(["repo", "key", *words, str(second), *where]) not in {0, 1}
    said = capsys.readouterr().err
    assert f"longshore repo key import {second}" in said
    store = datapath.FolderStore(str(tmp_path / "r"))
    if arrives:
        assert len(datapath.open(store, datapath.Key.from_file(second)).slots()) == 2
    assert main(["repo", "key", "import", str(second), *where]) == 0
    assert datapath.open(store, datapath.Key.from_file(second)).slots()
