"""Backup of a directory, as a whole process, beside restic."""
