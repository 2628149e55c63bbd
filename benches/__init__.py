"""Measurements: whole processes beside peers."""
