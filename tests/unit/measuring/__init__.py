"""Tests of what measurements rest on: statistics, kept runs, data from seeds, the page, the gate."""
