"""Backup of directories, as whole processes, beside restic, kopia, rustic and borg.

    make bench                      prints and writes results.md from what was measured
    make bench ONLY=restore-real    measures one row, or goes on with it; ONLY=all measures what is not yet measured
    make bench-quick                small sizes, in minutes, on the terminal alone

Start reading at rows.py (what is measured), then scenarios.py (how). stats.py and keep.py hold what the figures rest on.
"""
