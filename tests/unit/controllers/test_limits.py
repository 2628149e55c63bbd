"""Limits of a node's jobs: the flags' hold, a folder's go before them and follow its files, and what makes no sense changes nothing."""

import io
import json
import shutil

import pytest
from tests.unit.controllers.fake_datapath import wait_for

from longshore.controllers.limits import Bounds, LimitsFolder
from longshore.kube.fake.clock import ManualClock
from longshore.logs import configure


class Held:
    """Notes each time that it is bounded."""

    def __init__(self):
        self.told = []

    def set(self, *, upload_bytes_per_second=None, download_bytes_per_second=None, requests=None):
        self.told.append(Bounds(upload=upload_bytes_per_second, download=download_bytes_per_second, requests=requests))


def write(folder, **texts):
    """Lay files down as the kubelet does: a link is turned to a folder of theirs."""
    folder.mkdir(exist_ok=True)
    version = folder / f"..{len(list(folder.iterdir()))}"
    version.mkdir()
    for name, text in texts.items():
        (version / name).write_text(text)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    (folder / "new").symlink_to(version.name)
    (folder / "new").rename(folder / "..data")


FLAGS = Bounds(upload=7, download=8, requests=9)


def test_flags_hold_without_a_folder():
    held = Held()
    limits = LimitsFolder(held, flags=FLAGS, folder=None)
    limits.start(failed=pytest.fail)
    assert held.told == [FLAGS] and limits.look() == FLAGS
    assert limits.stop(timeout_seconds=5.0) and limits.not_live() is None


def test_a_folder_goes_before_flags_and_holds_before_anything_runs(tmp_path):
    held = Held()
    write(tmp_path / "limits", upload="20MiB\n", requests="", download="0")
    LimitsFolder(held, flags=FLAGS, folder=tmp_path / "limits")
    assert held.told[-1] == Bounds(upload=20 << 20)


def test_changes_are_followed_and_set_once(tmp_path):
    held, folder = Held(), tmp_path / "limits"
    limits = LimitsFolder(held, flags=FLAGS, folder=folder)
    wanted = [FLAGS]
    for texts, bounds in (
        ({"upload": "1KiB", "download": "", "requests": "3"}, Bounds(upload=1 << 10, requests=3)),
        ({"upload": "2KiB", "download": "5MiB", "requests": "0"}, Bounds(upload=2 << 10, download=5 << 20)),
        # A file that goes leaves its limit to the flag.
        ({"upload": "2KiB"}, Bounds(upload=2 << 10, download=8, requests=9)),
    ):
        write(folder, **texts)
        wanted.append(bounds)
        assert limits.look() == limits.look() == bounds
        assert held.told == wanted


def test_what_is_taken_away_leaves_its_limits_to_the_flags(tmp_path):
    held, folder = Held(), tmp_path / "limits"
    write(folder, upload="1KiB", download="2KiB", requests="3")
    limits = LimitsFolder(held, flags=FLAGS, folder=folder)
    assert held.told[-1] == Bounds(upload=1 << 10, download=2 << 10, requests=3)
    # Of a ConfigMap that is deleted the kubelet turns the link to an empty folder, and then takes the names away.
    write(folder)
    assert limits.look() == held.told[-1] == FLAGS
    write(folder, upload="4KiB")
    assert limits.look().upload == 4 << 10
    shutil.rmtree(folder)
    assert limits.look() == held.told[-1] == FLAGS


def test_it_looks_again_and_again_while_it_runs(tmp_path):
    held, clock, folder = Held(), ManualClock(), tmp_path / "limits"
    limits = LimitsFolder(held, flags=FLAGS, folder=folder, clock=clock)
    limits.start(failed=pytest.fail)
    try:
        for text, size in (("1KiB", 1 << 10), ("2KiB", 2 << 10)):
            write(folder, upload=text)
            wanted = Bounds(upload=size, download=8, requests=9)
            wait_for(lambda: clock.advance(10.0) or held.told[-1] == wanted, what=text)  # noqa: B023 - at once
        assert limits.not_live() is None and limits.not_ready() is None
    finally:
        assert limits.stop(timeout_seconds=5.0)


@pytest.mark.parametrize("wrong", ["fast", "-5", "1 MiB extra", "\0", "9" * 70])
def test_what_makes_no_sense_changes_nothing_and_is_told_once(wrong, tmp_path):
    log = io.StringIO()
    configure(level="warning", stream=log)
    held, folder = Held(), tmp_path / "limits"
    write(folder, upload="1KiB", download="2KiB", requests="3")
    limits = LimitsFolder(held, flags=FLAGS, folder=folder)
    good = Bounds(upload=1 << 10, download=2 << 10, requests=3)
    assert held.told == [FLAGS, good]
    assert log.getvalue() == ""
    write(folder, upload="1KiB", download="4KiB", requests=wrong)
    for _ in range(3):
        # What can be understood holds all the same.
        assert limits.look() == Bounds(upload=1 << 10, download=4 << 10, requests=3)
    (told,) = [json.loads(line) for line in log.getvalue().splitlines()]
    assert told["file"].endswith("/requests") and told["held"] == 3 and told["next_step"]
    write(folder, upload="1KiB", download="4KiB", requests="5")
    assert limits.look().requests == 5


@pytest.mark.parametrize("wrong", ["9" * 40, "9" * 40 + "PiB", "8388608TiB"])
def test_a_rate_beyond_all_counting_is_refused_from_the_first_look_on(wrong, tmp_path):
    held, folder = Held(), tmp_path / "limits"
    write(folder, upload=wrong, download="1KiB")
    assert LimitsFolder(held, flags=FLAGS, folder=folder).look() == Bounds(upload=7, download=1 << 10, requests=9)


def test_a_slip_in_a_name_is_told_once(tmp_path):
    log = io.StringIO()
    configure(level="warning", stream=log)
    held, folder = Held(), tmp_path / "limits"
    write(folder, uplaod="1KiB", download="1KiB")
    limits = LimitsFolder(held, flags=FLAGS, folder=folder)
    for _ in range(3):
        assert limits.look() == Bounds(upload=7, download=1 << 10, requests=9)
    (told,) = [json.loads(line) for line in log.getvalue().splitlines()]
    assert told["names"] == ["uplaod"] and told["next_step"]
    # Another slip is told, too, and so is one that comes again.
    for name in ("requets", "uplaod"):
        write(folder, **{name: "1"})
        (folder / "uplaod").unlink(missing_ok=True) if name == "requets" else (folder / "requets").unlink()
        limits.look()
    assert [json.loads(line)["names"] for line in log.getvalue().splitlines()] == [["uplaod"], ["requets"], ["uplaod"]]


def test_a_file_that_cannot_be_read_changes_nothing(tmp_path):
    held, folder = Held(), tmp_path / "limits"
    folder.mkdir()
    (folder / "upload").mkdir()
    assert LimitsFolder(held, flags=FLAGS, folder=folder).look() == FLAGS
