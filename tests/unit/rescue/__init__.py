"""Tests of rescue.py against a writer of its own; neither knows the engine."""
