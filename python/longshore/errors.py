"""Every error that Longshore raises on purpose, in one tree, sorted by what the caller does next.

What may enter: conditions that a caller treats differently from its siblings. A class stands for a next step, not for a place in the code, so that a
controller, the command line and a script can each decide by class alone.

::

    LongshoreError                                     exit  code                       what the caller does
    ├── UsageError                                        2  usage                      mend the call or the spec; never retry
    │   └── InvalidObjectError                            2  invalid_object             the API server refused the object (422)
    ├── IncompleteError                                   3  incomplete                 keep the result, name what is missing
    │   └── ItemsLostError                                3  items_lost                 some items were not captured or restored
    ├── CorruptError                                      4  corrupt                    stop trusting what was read; run a check
    ├── UnsupportedError                                  1  unsupported                this kind of thing is not served; Failed
    │   └── NewerFormatError                             14  newer_format               upgrade
    ├── NotFoundError                                     1  not_found                  it is gone; often that is the answer
    │   ├── RepositoryNotFoundError                      10  repository_not_found       init, or mend the location
    │   ├── SnapshotNotFoundError                        13  snapshot_not_found         list snapshots, choose another
    │   └── VolumeNotFoundError                           1  volume_not_found           the pod's volume is not on this node
    ├── AlreadyExistsError                                1  already_exists             take the one that is there, or choose another name
    │   └── RepositoryExistsError                         1  repository_exists          open it with its key, or choose another place
    ├── ConflictError (retryable)                         1  conflict                   read again, decide again
    ├── GoneError (retryable)                             1  gone                       resourceVersion too old: list again
    ├── DeniedError                                       1  denied                     credentials or rights must change first
    │   ├── WrongKeyError                                12  wrong_key                  bring the repository's key
    │   ├── StoreDeniedError                             15  store_denied               the store refuses these credentials
    │   └── ApiDeniedError                                1  api_denied                 the API server refuses (401, 403)
    ├── UnavailableError (retryable)                      1  unavailable                come back later, with backoff
    │   ├── StoreUnavailableError                        15  store_unavailable          the store does not answer
    │   ├── ApiUnavailableError                           1  api_unavailable            the API server does not answer
    │   │   └── TooManyRequestsError                      1  too_many_requests          wait retry_after_seconds first
    │   └── NotReadyError                                 1  not_ready                  something awaited is not there yet
    ├── VolumeError                                       1  volume                     mend the directory or its disk, run again
    ├── NoSpaceError                                     16  no_space                   free space
    ├── CancelledError                                  130  cancelled                  stop quietly: someone asked for it
    │   └── InterruptedByUserError                      130  interrupted                Ctrl-C or SIGTERM
    ├── TerminalError                                     1  terminal                   a controller is done with this object; no retry
    ├── LeaseLostError                                    1  lease_lost                 stop at once: another holder may be at work
    └── InternalError                                     1  internal                   a fault of Longshore itself; report it

Promises: `code` is stable and never used again for something else; `exit_code` follows the table of exit codes of the command line; the list only grows.
Every class is made by ``Class(message, next_step)`` and nothing more, because the native extension raises them by name through :func:`by_name`.
Messages start in lower case, have no full stop and end with their variables; `next_step` is one sentence for an operator.

What it does not know: HTTP, the store, the engine. Those translate at their own edge and chain the cause (``raise … from err``).
"""

from __future__ import annotations

from typing import ClassVar, Final

__all__ = [
    "AlreadyExistsError",
    "ApiDeniedError",
    "ApiUnavailableError",
    "CancelledError",
    "ConflictError",
    "CorruptError",
    "DeniedError",
    "GoneError",
    "IncompleteError",
    "InternalError",
    "InterruptedByUserError",
    "InvalidObjectError",
    "ItemsLostError",
    "LeaseLostError",
    "LongshoreError",
    "NewerFormatError",
    "NoSpaceError",
    "NotFoundError",
    "NotReadyError",
    "RepositoryExistsError",
    "RepositoryNotFoundError",
    "SnapshotNotFoundError",
    "StoreDeniedError",
    "StoreUnavailableError",
    "TerminalError",
    "TooManyRequestsError",
    "UnavailableError",
    "UnsupportedError",
    "UsageError",
    "VolumeError",
    "VolumeNotFoundError",
    "WrongKeyError",
    "by_name",
]


class LongshoreError(Exception):
    """The root: an error with a stable code, an exit code and, where there is one, the operator's next step."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False
    step: ClassVar[str] = "look at the log of who says this"
    """The next step of its kind, for an error that was made without one of its own."""

    def __init__(self, message: str, next_step: str | None = None) -> None:
        """Keep the message and the next step.

        Args:
            message: lower-case, no full stop, variables last.
            next_step: what an operator does about it, one sentence; None when there is nothing to do.
        """
        super().__init__(message)
        self.message: Final = message
        self.next_step: Final = next_step

    def __str__(self) -> str:
        """The message alone; the next step is shown beside it, not inside it."""
        return self.message

    def __repr__(self) -> str:
        step = "" if self.next_step is None else f", next_step={self.next_step!r}"
        return f"{type(self).__name__}({self.message!r}{step})"

    def __reduce__(self) -> tuple[object, ...]:
        """Survive a copy or a trip to another process with the next step and every added field."""
        return (type(self), (self.message, self.next_step), self.__dict__)

    def text(self) -> str:
        """Message and next step in one line, for a status message or a terminal."""
        return self.message if self.next_step is None else f"{self.message}; {self.next_step}"

    def told(self) -> str:
        """The same for who has nothing else to go by (an object's status, an Event): never without a next step."""
        return f"{self.message}; {self.next_step or self.step}"


class UsageError(LongshoreError):
    """The request itself is wrong."""

    code = "usage"
    step = "correct what is named, and ask again"
    exit_code = 2


class InvalidObjectError(UsageError):
    """The API server refused an object's content (400, 413, 415, 422)."""

    code = "invalid_object"


class IncompleteError(LongshoreError):
    """Finished, but not whole."""

    code = "incomplete"
    step = "see what is missing, correct the cause and try again"
    exit_code = 3


class ItemsLostError(IncompleteError):
    """Some items were not captured or not restored; the summary names them."""

    code = "items_lost"


class CorruptError(LongshoreError):
    """Bytes that were read are not the bytes that were written."""

    code = "corrupt"
    step = "see what is damaged and whom it hurts with longshore repo check"
    exit_code = 4


class UnsupportedError(LongshoreError):
    """A thing of a kind that is not served."""

    code = "unsupported"
    step = "leave it out, nothing of this kind is served"


class NewerFormatError(UnsupportedError):
    """Written by a newer version, or with a required feature that this one lacks."""

    code = "newer_format"
    step = "upgrade Longshore"
    exit_code = 14


class NotFoundError(LongshoreError):
    """The named thing is not there."""

    code = "not_found"
    step = "make what is named, or correct the name"


class RepositoryNotFoundError(NotFoundError):
    """No repository lies at this place."""

    code = "repository_not_found"
    step = "correct the location, or back up first"
    exit_code = 10


class SnapshotNotFoundError(NotFoundError):
    """No such snapshot, or no such path in it."""

    code = "snapshot_not_found"
    step = "choose another of longshore volume list"
    exit_code = 13


class VolumeNotFoundError(NotFoundError):
    """The pod's volume has no directory on this node, or more than one."""

    code = "volume_not_found"
    step = "look on the pod's node whether the volume is mounted"


class AlreadyExistsError(LongshoreError):
    """The name is taken."""

    code = "already_exists"
    step = "take the one that is there, or choose another name"


class RepositoryExistsError(AlreadyExistsError):
    """A repository, or part of one, is already at this place; nothing was touched."""

    code = "repository_exists"
    step = "open it with its key, or choose another place"


class ConflictError(LongshoreError):
    """Someone else wrote in between; nothing was changed by this call."""

    code = "conflict"
    step = "wait, it is tried again"
    retryable = True


class GoneError(LongshoreError):
    """The resourceVersion or continue token is no longer served."""

    code = "gone"
    step = "wait, it is tried again"
    retryable = True


class DeniedError(LongshoreError):
    """Refused; the same request with the same credentials will be refused again."""

    code = "denied"
    step = "give the rights that are missing, then try again"


class WrongKeyError(DeniedError):
    """The repository was made with another key."""

    code = "wrong_key"
    step = "bring the repository's key with longshore repo key import FILE"
    exit_code = 12


class StoreDeniedError(DeniedError):
    """The store refuses these credentials, or there are none."""

    code = "store_denied"
    step = "give the location credentials that the store accepts"
    exit_code = 15


class ApiDeniedError(DeniedError):
    """The API server answered 401 or 403."""

    code = "api_denied"
    step = "apply the roles of the installation again"


class UnavailableError(LongshoreError):
    """Not now; later the same request may succeed."""

    code = "unavailable"
    step = "wait, it is tried again; see whether what is named is up"
    retryable = True


class StoreUnavailableError(UnavailableError):
    """The store does not answer, or answers that it is in trouble."""

    code = "store_unavailable"
    exit_code = 15


class ApiUnavailableError(UnavailableError):
    """The API server does not answer, or answers 5xx."""

    code = "api_unavailable"


class TooManyRequestsError(ApiUnavailableError):
    """The API server asks for patience (429, or 503 with Retry-After)."""

    code = "too_many_requests"
    retry_after_seconds: float = 1.0
    """How long the server asked to be left alone; set by whoever translated the answer."""


class NotReadyError(UnavailableError):
    """Something awaited is not there yet."""

    code = "not_ready"


class VolumeError(LongshoreError):
    """The volume's directory cannot be read or written."""

    code = "volume"
    step = "look at the directory and its disk on the node, then try again"


class NoSpaceError(LongshoreError):
    """A disk or quota is full. Whoever raises it without a next step, as the engine does, has the one that always holds."""

    code = "no_space"
    step = "make room there, or raise the quota, and try again; what is stored already is unharmed"
    exit_code = 16

    def __init__(self, message: str, next_step: str | None = None) -> None:
        """See :class:`LongshoreError`."""
        super().__init__(message, next_step or self.step)


class CancelledError(LongshoreError):
    """Stopped because someone asked for it."""

    code = "cancelled"
    step = "ask again if it is wanted after all"
    exit_code = 130


class InterruptedByUserError(CancelledError):
    """Stopped by a signal."""

    code = "interrupted"


class TerminalError(LongshoreError):
    """Raised by a controller's handler: trying this object again would end the same way."""

    code = "terminal"
    step = "correct the object, or make a new one"


class LeaseLostError(LongshoreError):
    """This process may no longer act for what the lease guards."""

    code = "lease_lost"
    step = "wait, who holds the lease goes on"


class InternalError(LongshoreError):
    """A fault of Longshore itself."""

    code = "internal"
    step = "report it with the log"


def by_name(name: str) -> type[LongshoreError]:
    """Find a class of the tree for the native extension.

    Args:
        name: the class's name, with or without its `Error` ending, e.g. `WrongKey` or `WrongKeyError`.

    Returns:
        The class; InternalError for a name that is not in the tree, so that an unknown kind is still caught as ours.
    """
    found = globals().get(name if name.endswith("Error") else f"{name}Error")
    if isinstance(found, type) and issubclass(found, LongshoreError):
        return found
    return InternalError
