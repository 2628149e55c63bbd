"""The page: the better profile counts, runs are paired by round and group, and what was not measured is never called reached."""

from benches.volume.render import against, compared, details, page, stored, table, verdict
from benches.volume.rows import Row
from tests.unit.measuring.runs import SETTING, made_up_run

ROW = Row("row", "a row", "first", lambda folder, scale: None, {"restic": 2.0})


def three(tool, wall, **more):
    return [made_up_run(tool, wall, round_=n, **more) for n in range(3)]


def test_the_better_profile_counts_for_each_time_by_itself():
    runs = three("longshore", 1.0)
    runs += three("restic", 5.0, cpu=2.0) + three("restic", 3.0, cpu=4.0, profile="tuned")
    found = against(runs, "restic", 2.0, "first", "first")
    assert (found.wall.median, found.wall_profile) == (3.0, "tuned")
    assert (found.cpu.median, found.cpu_profile) == (2.0, "default")


def test_a_profile_left_after_one_round_does_not_speak():
    runs = three("longshore", 1.0) + three("restic", 3.0, profile="tuned") + [made_up_run("restic", 2.9)]
    assert against(runs, "restic", 2.0, "first", "first").wall_profile == "tuned"


def test_pairs_are_of_one_round_and_group():
    runs = [made_up_run("longshore", 1.0, group="a"), made_up_run("longshore", 10.0, group="b")]
    runs += [made_up_run("restic", 20.0, group="b"), made_up_run("restic", 99.0, group="b", round_=1)]
    found = against(runs, "restic", 2.0, "first", "first")
    assert (found.wall.median, found.wall.pairs) == (2.0, 1)


def test_reached_needs_wall_and_cpu():
    runs = three("longshore", 1.0)
    assert verdict(ROW, runs + three("restic", 2.0)) == "reached"
    assert verdict(ROW, runs + three("restic", 2.0, cpu=1.9)) == "below"
    assert verdict(ROW, runs + three("restic", 1.9, cpu=2.0)) == "below"


def test_what_was_not_measured_is_never_reached():
    assert verdict(ROW, []) == "not measured"
    assert verdict(ROW, three("longshore", 1.0)) == "not against every peer"
    small = SETTING.__class__("abc", "a machine", 0.1)
    runs = three("longshore", 1.0, setting=small) + three("restic", 9.0, setting=small)
    assert verdict(ROW, runs) == "only at scale 0.1"
    assert "not measured (≥ 2)" in table([(ROW, [])])[-1]
    assert "✓" not in "".join(table([(ROW, [])]))


def test_a_second_step_of_ours_is_held_against_the_only_one_of_the_peers():
    row = Row("row", "all / tags", "verify", lambda *_: None, {"restic": 3.0}, more_steps={"tags": {"restic": 8.0}})
    runs = three("longshore", 2.0, step="verify") + three("longshore", 1.0, step="tags")
    runs += three("restic", 8.0, step="verify")
    (_, [first]), (word, [second]) = compared(row, runs)
    assert (first.wall.median, word, second.wall.median) == (4.0, "tags", 8.0)
    assert verdict(row, runs) == "reached"
    assert verdict(row, [run for run in runs if run.step != "tags"]) == "not against every peer"


def test_page_shows_memory_beyond_the_start_and_the_conditions():
    runs = three("longshore", 1.0, stored_bytes=2e6) + three("restic", 3.0, stored_bytes=3e6, differences=2.0)
    text = "\n".join(details(ROW, runs))
    assert "| longshore 1, first | 3 | 1.00 | 1.00 | 70 | 100 | 2.0 |  |  |" in text
    assert "| restic 1, default, first | 3 | 3.00 | 3.00 | 70 | 100 | 3.0 |  | 2 |" in text
    assert "load average before runs 0.1 to 0.1" in text
    whole = page([(ROW, runs)], ["no absolute figures"], [], [])
    assert "| a row | ✓ **3.00** / 3.00 (≥ 2) | - | - | - | reached |" in whole
    assert whole.count("a machine") == 1


def test_ours_without_its_check_counts_for_no_figure_and_is_shown_beside_who_has_none():
    row = Row("row", "a row", "first", lambda *_: None, {"restic": 2.0, "kopia": 2.0})
    runs = three("longshore", 2.0) + three("longshore", 1.0, profile="unchecked")
    runs += three("restic", 5.0) + three("kopia", 4.5)
    assert [one.wall.median for one in compared(row, runs)[0][1]] == [2.5, 2.25]
    text = "\n".join(details(row, runs))
    assert "- kopia, which checks nothing before it uploads, beside Longshore without its check: wall 4.50" in text
    assert "| longshore 1, unchecked, first |" in text and "restic, which" not in text


def test_what_is_stored_is_held_against_restic_in_the_mean_of_first_backups():
    def rows(ours):
        again = Row("again", "again", "again", lambda *_: None, {"restic": 2.0})
        runs = three("longshore", 1.0, stored_bytes=ours) + three("restic", 3.0, stored_bytes=100.0)
        return [(ROW, runs), (ROW, three("longshore", 1.0, stored_bytes=90.0) + runs[3:]), (again, runs), (ROW, [])]

    assert stored(rows(110.0))[0].startswith("✓ Stored: 1.000 of") and "mean of 2" in stored(rows(110.0))[0]
    assert stored(rows(120.0))[0].startswith("✗ Stored: 1.050 of")
    assert stored([(ROW, [])]) == []
