"""The demo's copy of somebody's directory: what it cannot copy is named."""

import os
import subprocess

import pytest
from scripts.demo.data import copy_source


@pytest.fixture
def source(tmp_path):
    made = tmp_path / "source"
    (made / "below").mkdir(parents=True)
    (made / "below" / "file").write_bytes(b"content")
    (made / "link").symlink_to("below/file")
    return made


def test_whole_copy_leaves_nothing_out(source, tmp_path):
    assert copy_source(source, tmp_path / "target", apart_from=tmp_path / "demo") == []
    assert (tmp_path / "target" / "below" / "file").read_bytes() == b"content"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")
def test_owners_that_an_ordinary_user_cannot_copy_are_named(source, tmp_path, monkeypatch):
    os.chown(source / "below" / "file", 999, 999)
    os.chown(source / "link", 0, 999, follow_symlinks=False)
    real = subprocess.run

    def as_an_ordinary_user_would(command, **settings):
        return real([command[0], *command[1:-3], "--no-preserve=ownership", *command[-3:]], **settings)

    monkeypatch.setattr(subprocess, "run", as_an_ordinary_user_would)
    left_out = copy_source(source, tmp_path / "target", apart_from=tmp_path / "demo")
    assert left_out == ["the owner or group of 2 entries: only root can give files away"]
