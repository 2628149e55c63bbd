"""What a machine lacks fails a test of CI, and skips it elsewhere."""

import pytest
from tests.support.lacking import lacks, needs

# Both are caught in each: a skip that gets out would skip the test that was to notice it.
OUTCOMES = (pytest.fail.Exception, pytest.skip.Exception)


def test_ci_fails_by_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(OUTCOMES, match="what CI must have cannot be had: no such thing") as caught:
        lacks("no such thing")
    assert caught.type is pytest.fail.Exception
    assert needs(False, "no such thing").args == (False,) == needs(True, "no such thing").args


def test_elsewhere_it_is_a_skip_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(OUTCOMES, match="no such thing") as caught:
        lacks("no such thing")
    assert caught.type is pytest.skip.Exception
    mark = needs(False, "no such thing")
    assert mark.args == (True,) and mark.kwargs == {"reason": "no such thing"}
    assert needs(True, "no such thing").args == (False,)


def test_no_other_file_asks_whether_this_is_ci(pytestconfig: pytest.Config) -> None:
    """Else the next skip would be forgotten: who lacks something says so here."""
    own = pytestconfig.rootpath / "tests"
    asking = {
        str(path.relative_to(own))
        for path in own.rglob("*.py")
        if "pytest.fail(" in path.read_text() and '"CI"' in path.read_text() and path.name != "test_lacking.py"
    }
    assert asking == {"support/lacking.py"}
