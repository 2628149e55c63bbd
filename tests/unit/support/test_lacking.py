"""What a machine lacks fails a test of CI, and skips it elsewhere."""

import pytest
from tests.support.lacking import lacks, needs


def test_ci_fails_by_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="what CI must have cannot be had: no such thing"):
        lacks("no such thing")
    assert needs(False, "no such thing").args == (False,) == needs(True, "no such thing").args


def test_elsewhere_it_is_a_skip_that_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no such thing"):
        lacks("no such thing")
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
