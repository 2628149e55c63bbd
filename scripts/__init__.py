"""Helpers of the Makefile; nothing of the product imports from here."""
