"""The reader of guides: a page falls into the commands that a person would type, and what is shown is not taken for what came when it is not."""

import os
import time

import pytest
from tests.support import guide
from tests.support.guide import Shell, Walk, commands, missing

PAGE = """# A page

## Begin

```sh
export WHERE=/mnt/here  # yours
cat > file <<END
one
END

say "two
lines" \\
    more
# no command
echo "$WHERE"
```

Then:

```console
$ echo safe 12
safe 99
$ echo two; echo three
…
three
```

```sh
false
echo safe 12
false
```

```
something else
```
"""


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setattr(guide, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text(PAGE)
    yield "page.md"
    guide.blocks.cache_clear()
    guide.commands.cache_clear()


@pytest.fixture
def shell(tmp_path):
    with Shell(tmp_path, home=tmp_path / "home", programs={"say": ["echo", "say"]}, env={}) as made:
        yield made


def test_commands_are_those_that_a_person_would_type(page):
    found = commands(page)
    assert [one.name for one in found] == [
        "export WHERE=/mnt/here  # yours",
        "cat > file <<END",
        'say "two',
        'echo "$WHERE"',
        "echo safe 12",
        "echo two; echo three",
        "false",
        "echo safe 12 (2)",
        "false (2)",
    ]
    assert found[1].text == "cat > file <<END\none\nEND" and found[1].line == 7
    assert found[2].text == 'say "two\nlines" \\\n    more'
    assert (found[4].shown, found[5].shown) == ("safe 99", "…\nthree")
    assert {one.block.heading for one in found} == {"Begin"}


@pytest.mark.parametrize(
    ("shown", "real", "lost"),
    [
        ("NAME   AGE\nbackup-1  3s", "NAME  AGE\nbackup-77   4m12s\n", []),
        ("size 282.5 MiB", "size 1.0 KiB", []),
        ("NAME  AGE", "NAME  STATUS  AGE", ["NAME  AGE"]),
        ("applied: Namespace velero\n…\nnext: look", "applied: Namespace velero\na\nb\nnext: look", []),
        ("first\nsecond", "second\nfirst", ["second"]),
        ("kept in …, and", "kept in 3 folders, and", []),
        ("safe", "unsafe", ["safe"]),
        ("12 files", "12 folders", ["12 files"]),
    ],
)
def test_what_is_shown_must_come(shown, real, lost):
    assert missing(shown, real) == lost


def walk(page, shell, **more):
    made = Walk(page, shell, **{"fill": {"/mnt/here": "/mnt/there"}, **more})
    made.thing("", "Begin")
    return made


FAILS = {"false": (1, "Then:"), "false (2)": (1, "Then:")}


def test_walk_goes_from_end_to_end_in_one_shell(page, shell, tmp_path):
    made = walk(page, shell, exits=FAILS)
    made.finish()
    assert (tmp_path / "file").read_text() == "one\n"
    assert made.ran['say "two'].out == "say two\nlines more\n"
    assert made.ran['echo "$WHERE"'].out == "/mnt/there\n"


def test_walk_that_forgets_something_fails(page, shell):
    with pytest.raises(AssertionError, match=r"wanted exit code 0, came exit code 1"):
        walk(page, shell, left_out=["false (2)"]).finish()
    with pytest.raises(AssertionError, match=r"the page does not say it"):
        walk(page, shell, exits={"false": (1, "it ends with 1")})
    with pytest.raises(AssertionError, match=r"fits nothing on the page.*nowhere"):
        walk(page, shell, exits={**FAILS}, fill={"/mnt/here": "", "nowhere": ""}).finish()
    with pytest.raises(AssertionError, match=r"blocks that nobody looked at"):
        Walk(page, shell, exits=FAILS).finish()


def test_shown_output_that_does_not_come_fails_the_walk(page, shell, tmp_path):
    text = (tmp_path / "page.md").read_text().replace("safe 99", "safe 99 of 100")
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(AssertionError, match=r"is shown and did not come: \['safe 99 of 100'\]"):
        walk(page, shell, exits=FAILS).finish()


def test_what_a_guide_left_running_ends_with_it(shell, tmp_path):
    shell.run("sleep 1000 & echo $! > pid")
    running = int((tmp_path / "pid").read_text())
    os.kill(running, 0)
    shell.close()
    ends = time.monotonic() + 30
    while True:
        try:
            os.kill(running, 0)
        except ProcessLookupError:
            return
        with open(f"/proc/{running}/stat") as stat:
            if stat.read().split()[2] == "Z":
                return
        assert time.monotonic() < ends
        time.sleep(0.02)
