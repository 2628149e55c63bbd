"""What a job is asked to do. Defaults here are what a user gets who says nothing.

Paths are `str` as Python gives them for any bytes (surrogates where a name is not UTF-8); paths inside a snapshot are bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace

__all__ = ["BackupOptions", "FileHint", "Hints", "PruneOptions", "RepairOptions", "RestoreOptions"]


@dataclass(frozen=True, slots=True)
class FileHint:
    """What may have changed in one file; the rest is as the snapshot has it that the hints are relative to."""

    path: bytes
    """From the volume's root, without a leading slash."""
    _: KW_ONLY
    size_bytes: int
    """This and the times are what `os.stat` said before it was asked what changed."""
    mtime_ns: int
    ctime_ns: int
    ranges: Sequence[tuple[int, int]]
    """Offset and length of each range outside of which nothing has changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What somebody outside knows of what has changed: it spares reading, and decides nothing else."""

    since: str
    """The whole id of the snapshot to which they are relative: they hold what was written since that backup began."""
    taken_ns: int
    """When it was known what changed, in nanoseconds, by this machine's clock."""
    files: Sequence[FileHint]
    ignored: int = 0
    """Hints that could not be understood; they are counted with those that the engine does not take."""


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
    """`auto`, `none`, or a level of zstd: -7 to -1 or 1 to 19."""
    verify_upload: str = "full"
    """What is checked of a pack before it is sent: `full`, `header` or `none`."""
    paranoid: bool = False
    """Read every file, whatever its times say."""
    hints: Hints | None = None
    """What is known to have changed in large files."""


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """What to restore, where, and how.

    The policy's defaults are those for hostile ground: whatever lends rights beyond owner and mode is left out and named in the result. Who answers for the
    repository, as on the command line, allows it with :meth:`trusting`.
    """

    snapshot_id: str
    _: KW_ONLY
    target: str
    """Directory in which the contents are laid; made when absent, its parent must exist."""
    path: bytes = b""
    """Path in the snapshot; empty for all of it."""
    delete_extra: bool = False
    """Remove what the snapshot does not have."""
    allow_setuid: bool = False
    """setuid and setgid on anything but directories."""
    allow_devices: bool = False
    allow_capabilities: bool = False
    allow_trusted_xattrs: bool = False
    allow_selinux: bool = False
    """`security.*` but capabilities."""
    restore_owner: bool = True
    """Owner and group; without them everything belongs to who restores."""
    restore_root_metadata: bool = True
    """Give the target the mode, owner, times and xattrs of what is restored in it."""
    dry_run: bool = False
    """Read the trees, write nothing."""
    strict: bool = False
    """Count what the policy left out as lost."""
    keep_damaged: bool = False
    """Keep what can be read of damaged files, as `NAME.longshore-damaged`."""
    trust_times: bool = False
    """Take a file that has the recorded length and modification time for unchanged, without reading it."""
    workers: int | None = None
    memory_limit_bytes: int | None = None
    host: str = ""
    """For the marker that keeps a prune away."""

    def trusting(self) -> RestoreOptions:
        """Give the same with everything allowed that the caller may set."""
        return replace(
            self,
            allow_setuid=True,
            allow_devices=True,
            allow_capabilities=True,
            allow_trusted_xattrs=True,
            allow_selinux=True,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RepairOptions:
    """What a repair does."""

    dry_run: bool = False
    """Say what would be done; write nothing."""
    read_data: bool = False
    """Read every pack, not only what leads to them: finds what rots at rest."""
    fresh: bool = False
    """Read what an interrupted repair has read, too."""
    host: str = ""
    """For people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneOptions:
    """What a prune may do."""

    dry_run: bool = False
    """Say what would be done; write nothing."""
    forget: Sequence[str] = ()
    """Ids of snapshots that a dry run takes for deleted."""
    allow_empty: bool = False
    """Go on although no snapshot counts: everything is freed."""
    waste_percent: int = 40
    """Share of dead bytes from which what is needed of a pack is moved elsewhere."""
    max_repack_bytes: int | None = None
    """Most bytes that are moved; None for no bound."""
    fence_after_seconds: int = 7 * 24 * 3600
    """How long nothing of a session may have changed, over three prunes, before it is judged dead."""
    fence_now: bool = False
    """Judge every open session dead now."""
    fence: Sequence[str] = ()
    """Sessions whose process is known to be gone."""
