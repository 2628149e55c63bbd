"""Tests, as one package, so that helpers are imported by one name wherever pytest is started from."""
