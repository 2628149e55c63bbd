"""What a job is asked to do. Defaults here are what a user gets who says nothing.

Paths are `str` as Python gives them for any bytes (surrogates where a name is not UTF-8); paths inside a snapshot are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field

__all__ = ["BackupOptions"]


@dataclass(frozen=True, slots=True)
class BackupOptions:
    """What to back up and how."""

    path: str
    """The volume's directory."""
    _: KW_ONLY
    source: str
    """Identity of the volume; the newest snapshot of the same source is the one to compare with."""
    host: str = ""
    """Host or node, for people."""
    tags: Mapping[str, str] = field(default_factory=dict)
    parent: str | None = None
    """None for the newest of the same source, `none` for a full read, or an id."""
    excludes: Sequence[str] = ()
    """Patterns: without a slash they match a name anywhere, with one a path from the root."""
    exclude_root_names: Sequence[bytes] = ()
    """Names left out directly below the root, as they are."""
    one_file_system: bool = False
    """Stay on the root's filesystem."""
    dry_run: bool = False
    """Read and compare, store nothing."""
    strict: bool = False
    """Files that changed while they were read make the exit code 3."""
    workers: int | None = None
    """Threads that read, compress and seal; None for what the machine allows."""
    memory_limit_bytes: int | None = None
    """What buffers and packs may take together; None for a share of what the machine allows."""
    compression: str | int = "auto"
    """`auto`, `none`, or a level from 1 to 19."""
    verify_upload: str = "full"
    """What is checked of a pack before it is sent: `full`, `header` or `none`."""
    paranoid: bool = False
    """Read every file, whatever its times say."""
