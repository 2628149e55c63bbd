"""What becomes of a test for which this machine lacks something that it could have: a failure where `CI` is `true`, elsewhere a skip that says why.

That is for root's rights, packages, built components, and what every supported kernel can do. What depends on a machine's nature, such as its processor or
where its Python lies, is a plain skip of pytest's.

Does not know longshore.
"""

import os
from typing import NoReturn

import pytest

__all__ = ["lacks", "needs"]


def lacks(reason: str) -> NoReturn:
    """End this test as skipped; with `CI=true` as failed."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"what CI must have cannot be had: {reason}", pytrace=False)
    pytest.skip(reason)


def needs(had: bool, reason: str) -> pytest.MarkDecorator:
    """Mark tests that are skipped where something is not had; with `CI=true` they run all the same, and fail by what they lack."""
    return pytest.mark.skipif(not had and os.environ.get("CI") != "true", reason=reason)
