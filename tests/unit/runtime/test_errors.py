"""The tree of errors: codes and exit codes that scripts hold on to, and a constructor that the native extension can rely on."""

import copy
import pickle
import re

import pytest

from longshore import errors
from longshore.errors import LongshoreError

TREE = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, LongshoreError)]
DRAWN = re.findall(r"[├└]── (\w+Error)(?: \(retryable\))?\s+(\d+)\s+(\w+)\s", errors.__doc__ or "")


def test_every_class_is_public_and_drawn() -> None:
    names = {kind.__name__ for kind in TREE}
    assert names == set(errors.__all__) - {"by_name"}
    assert {name for name, _exit, _code in DRAWN} == names - {"LongshoreError"}


def test_the_drawing_is_true() -> None:
    for name, exit_code, code in DRAWN:
        kind = errors.by_name(name)
        assert (kind.exit_code, kind.code) == (int(exit_code), code), name


def test_the_drawing_nests_as_the_classes_do() -> None:
    above: dict[int, type] = {-1: LongshoreError}
    for indent, name, marked in re.findall(
        r"^    ([│ ]*)[├└]── (\w+)( \(retryable\))?", errors.__doc__ or "", re.MULTILINE
    ):
        kind = errors.by_name(name)
        depth = len(indent) // 4
        assert kind.__base__ is above[depth - 1], name
        assert kind.retryable == (bool(marked) or above[depth - 1].retryable), name  # type: ignore[attr-defined]
        above[depth] = kind


def test_codes_are_unique() -> None:
    codes = [kind.code for kind in TREE]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize(
    ("name", "exit_code"),
    [
        ("Usage", 2),
        ("Incomplete", 3),
        ("Corrupt", 4),
        ("RepositoryNotFound", 10),
        ("WrongKey", 12),
        ("SnapshotNotFound", 13),
        ("NewerFormat", 14),
        ("StoreUnavailable", 15),
        ("StoreDenied", 15),
        ("NoSpace", 16),
        ("InterruptedByUser", 130),
        ("Cancelled", 130),
        ("Internal", 1),
        ("Conflict", 1),
    ],
)
def test_exit_codes_that_scripts_hold_on_to(name: str, exit_code: int) -> None:
    assert errors.by_name(name).exit_code == exit_code
    assert errors.by_name(f"{name}Error") is errors.by_name(name)


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_class_is_made_by_message_and_next_step(kind: type[LongshoreError]) -> None:
    error = kind("it failed: a=1", "do this")
    assert (str(error), error.message, error.next_step) == ("it failed: a=1", "it failed: a=1", "do this")
    assert error.text() == "it failed: a=1; do this"
    bare = kind("it failed")
    assert bare.text() == ("it failed" if bare.next_step is None else f"it failed; {kind.step}")
    assert (bare.next_step is None) == (kind is not errors.NoSpaceError)
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(twin), str(twin), twin.next_step) == (kind, str(error), "do this")


@pytest.mark.parametrize("name", ["Nonesuch", "annotations", "by_name", "", "Final", "Value"])
def test_unknown_name_is_an_internal_error(name: str) -> None:
    assert errors.by_name(name) is errors.InternalError


def test_added_field_survives_a_copy() -> None:
    error = errors.TooManyRequestsError("wait")
    error.retry_after_seconds = 7
    assert copy.copy(error).retry_after_seconds == 7
