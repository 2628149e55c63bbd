"""What becomes of a test for which this machine lacks something that could be there: a failure where `CI` is `true`, elsewhere a skip that says why.

For what a machine for merges can have: root's rights, a package, a built component, a kernel's feature that every supported one has. What depends on the
machine's nature, such as its processor, is a plain skip.

Does not know longshore.
"""

import os
from typing import NoReturn

import pytest

__all__ = ["lacks"]


def lacks(reason: str) -> NoReturn:
    """End this test as skipped; with `CI=true` as failed."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have what cannot be had here: {reason}", pytrace=False)
    pytest.skip(reason)
