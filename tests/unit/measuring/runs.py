"""Runs as a measurement would keep them, made up for tests."""

from benches.volume.keep import Run, Setting

SETTING = Setting("abc", "a machine", 1.0)


def made_up_run(
    tool, wall, *, cpu=None, round_=0, profile="default", step="first", group="", setting=SETTING, **figures
):
    figures = {
        "wall_seconds": wall,
        "cpu_seconds": wall if cpu is None else cpu,
        "rss_mib": 100.0,
        "anon_mib": 80.0,
        "idle_anon_mib": 10.0,
    } | figures
    notes = {"version": f"{tool} 1", "data": "3 files, 4 bytes", "load": 0.1}
    return Run(setting, round_, tool, profile, group, step, 0, "0123456789ab", figures, notes)
