"""Tests of the oracle itself: a judge who never says no proves nothing."""
