"""Kubernetes backup that is Velero to its users, with a data path of its own.

ARCHITECTURE.md says what each room is for and where to start reading. Nothing is imported here, so that each command loads only the
rooms it needs.
"""
