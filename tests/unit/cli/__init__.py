"""Tests of the command line without an engine: words in, text and exit codes out."""
