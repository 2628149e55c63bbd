"""How far a prune is: what it has sent and what it has freed, as who watches it is shown."""

from __future__ import annotations

from pathlib import Path

from longshore import datapath
from tests.engine.conftest import Place, done
from tests.engine.test_prune import fill, size_of


def test_progress_tells_what_was_sent_and_what_was_freed(place: Place, tmp_path: Path) -> None:
    folder = tmp_path / "volume"
    folder.mkdir()
    fill(folder, range(40), seed=1)
    first = place.backup(folder).snapshot_id
    # What stays is spread: which files lie in a pack is up to the threads, and one that is wholly alive would stay where it is.
    for name in set(range(40)) - {0, 13, 26, 39}:
        (folder / f"f{name:03d}").unlink()
    place.backup(folder)
    assert first
    place.repository.remove(first, by="test")
    before = size_of(place)
    job = place.repository.prune(datapath.PruneOptions())
    result = done(job)
    progress = job.progress()
    assert result.packs_repacked and progress.stage == "finished"
    assert progress.bytes_stored >= result.bytes_moved > 0, "what moves elsewhere is sent"
    freed = before + progress.bytes_stored - size_of(place)
    assert progress.bytes_done == freed > 0, "what is deleted counts as done"
    idle = place.repository.prune(datapath.PruneOptions())
    done(idle)
    assert (idle.progress().bytes_done, idle.progress().bytes_stored) == (0, 0), "nothing to do is nothing done"
