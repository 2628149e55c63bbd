"""Who made an error need not have known a next step: what is told of it has one."""

import pytest
from tests.unit.controllers.next_steps import says_step

from longshore import errors
from longshore.controllers.phases import failed

CLASSES = [getattr(errors, name) for name in errors.__all__ if name != "by_name"]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_error_without_a_step_is_told_with_that_of_its_kind(kind):
    assert says_step(failed(kind("it went wrong: path=/a"), doing="back up").message)
    assert failed(kind("it went wrong: path=/a", "mend it"), doing="back up").message.endswith("path=/a; mend it")


def test_fault_that_nobody_foresaw_is_to_be_reported():
    assert says_step(failed(ValueError("x"), doing="back up").message)


@pytest.mark.parametrize("text", ["cancelled", "the store is full: attempt=1", "x; went on from attempt=2", "mend it"])
def test_text_without_a_step_is_seen(text):
    assert not says_step(text)
