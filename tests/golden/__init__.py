"""Repositories written by every format version, kept for ever, and the test that reads them."""
