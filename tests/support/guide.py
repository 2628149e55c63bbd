"""Guides as something that can be followed: their blocks in order, a shell that runs the commands as they are written, and what is shown held against what
came.

A block that is fenced as `sh` holds commands; one that is fenced as `console` holds `$ command` lines, each with what it printed. All others are things to
use: a file's content, or output of which the prose says when it is seen. `Walk` goes through the commands of a page, or of some of its headings, in one
bash, so what one exports the next one has. It changes nothing in them but what its caller names in `fill`: what a reader fills in, and what belongs to the
reader's machine.

Promises: a command that exits otherwise than by 0 fails the walk, unless the caller names code and the words of the page that say so. A thing that nobody
used, an entry of `fill`, `exits` or `before` that fits nothing, fails it too. `close` ends all that a guide started in the background; so does the death of
this process.

How shown output is compared: each shown line must be a line of the real output, in the same order, word by word. A word with a digit in it stands for any
word, and so does a unit after one; `…` stands for anything, a line of it alone for any lines.

Does not know: longshore, nor what a page is about.
"""

import os
import re
import selectors
import shlex
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 150
RUNS = ("sh", "console")

_FENCE = re.compile(r"^```(\w*) *$")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$")
_UNITS = {"B", "KB", "MB", "GB", "KiB", "MiB", "GiB", "TiB", "s", "ms"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `line` is the one after its fence."""

    page: str
    heading: str
    line: int
    language: str
    text: str


@dataclass(frozen=True)
class Command:
    """One command of a block, with what the page shows that it prints."""

    block: Block
    line: int
    name: str
    """Its first line; from the second one of a page on that begins so, with its number."""
    text: str
    shown: str = ""

    @property
    def where(self) -> str:
        return f"{self.block.page}:{self.line}"


def in_sentences(page: str, program: str) -> list[str]:
    """List the commands of a program that stand in the midst of a page's sentences."""
    prose = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    return re.findall(rf"`({program} [^`]+)`", prose)


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"exit code {self.code}\n--- stdout\n{self.out}\n--- stderr\n{self.err}"


@cache
def blocks(page: str) -> tuple[Block, ...]:
    """List the fenced blocks of a page in their order."""
    found: list[Block] = []
    heading, start, language, lines = "", 0, "", list[str]()
    for number, line in enumerate((ROOT / page).read_text().splitlines(), 1):
        fence = _FENCE.match(line)
        if start and line.rstrip() == "```":
            found.append(Block(page, heading, start, language, "\n".join(lines)))
            start = 0
        elif start:
            lines.append(line)
        elif fence:
            start, language, lines = number + 1, fence[1], []
        elif line.startswith("```"):
            raise ValueError(f"a fence that says more than its language: {page}:{number}")
        elif title := _HEADING.match(line):
            heading = title[1]
    assert not start, f"a block that does not end: page={page}, line={start}"
    return tuple(found)


@cache
def commands(page: str) -> tuple[Command, ...]:
    """List every command of a page."""
    found, counts = [], Counter[str]()
    for block in blocks(page):
        for line, text, shown in _split(block) if block.language in RUNS else ():
            name = text.splitlines()[0]
            counts[name] += 1
            found.append(Command(block, line, name if counts[name] == 1 else f"{name} ({counts[name]})", text, shown))
    return tuple(found)


def _split(block: Block) -> Iterator[tuple[int, str, str]]:
    lines = list(enumerate(block.text.splitlines(), block.line))
    if block.language == "console":
        while lines:
            number, line = lines.pop(0)
            assert line.startswith("$ "), f"no command where one must stand: {block.page}:{number}: {line}"
            shown = []
            while lines and not lines[0][1].startswith("$ "):
                shown.append(lines.pop(0)[1])
            yield number, line[2:], "\n".join(shown)
        return
    text, start = "", 0
    for number, line in lines:
        if not text and not line.strip():
            continue
        text, start = (f"{text}\n{line}", start) if text else (line, number)
        if _complete(text):
            if not text.startswith("#"):
                yield start, text, ""
            text = ""
    assert not text, f"a command that does not end: {block.page}:{start}: {text}"


@cache
def _complete(text: str) -> bool:
    # An open here-document is a warning to bash, an open quote an error; a line that goes on is neither.
    if text.endswith("\\"):
        return False
    judged = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    return judged.returncode == 0 and not judged.stderr


def missing(shown: str, real: str) -> list[str]:
    """List the shown lines that did not come, in their order."""
    lines = [" ".join(line.split()) for line in real.splitlines()]
    lost = []
    for line in shown.splitlines():
        if line.strip() in {"", "…"}:
            continue
        wanted = _pattern(line)
        place = next((at for at, one in enumerate(lines) if wanted.fullmatch(one)), None)
        if place is None:
            lost.append(line)
        else:
            del lines[: place + 1]
    return lost


def _pattern(line: str) -> re.Pattern[str]:
    parts, counted = [], False
    for word in line.split():
        if any(letter.isdigit() for letter in word) or (counted and word.strip("(),") in _UNITS):
            counted = True
            parts.append(r"\S+")
        else:
            counted = False
            parts.append(re.escape(word).replace("…", ".*"))
    return re.compile(" ".join(parts))


class Shell:
    """One bash that goes through a guide. Its folder is the reader's; programs are found as given, and in the system's folders."""

    def __init__(
        self, folder: Path, *, home: Path, programs: Mapping[str, Sequence[str | Path]], env: Mapping[str, str]
    ) -> None:
        """Start it.

        Args:
            folder: where commands run.
            home: the reader's; it is made.
            programs: by name, what is run instead, with arguments that come first.
            env: further variables.
        """
        home.mkdir(parents=True, exist_ok=True)
        self._kept = home.parent / f"{home.name}-shell"
        found = self._kept / "bin"
        found.mkdir(parents=True)
        for name, words in programs.items():
            program = found / name
            program.write_text(f'#!/bin/sh\nexec {shlex.join(map(str, words))} "$@"\n')
            program.chmod(0o755)
        self._count = 0
        variables = {"PATH": f"{found}:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(home), "COLUMNS": "400", **env}
        # Leads a group, in which what it starts in the background stays. Its input ends with this process, and then it ends them all.
        self._bash = subprocess.Popen(
            ["bash", "--norc", "--noprofile", "-uo", "pipefail"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env=variables,
            start_new_session=True,
            text=True,
            bufsize=1,
        )
        self._say("trap 'kill -KILL 0' EXIT")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _say(self, line: str) -> None:
        assert self._bash.stdin
        self._bash.stdin.write(line + "\n")
        self._bash.stdin.flush()

    def run(self, text: str, *, seconds: float = PATIENCE_SECONDS) -> Ran:
        """Run a command where the one before it left off."""
        self._count += 1
        said, out, err = (self._kept / f"{self._count:03}.{kind}" for kind in ("sh", "out", "err"))
        said.write_text(text + "\n")
        self._say(f". {shlex.quote(str(said))} </dev/null >{shlex.quote(str(out))} 2>{shlex.quote(str(err))}; echo $?")
        assert self._bash.stdout
        # A selector, for `select` knows no descriptor above 1,023.
        with selectors.DefaultSelector() as selector:
            selector.register(self._bash.stdout, selectors.EVENT_READ)
            ready = selector.select(seconds)
        answer = self._bash.stdout.readline().strip() if ready else ""

        def told(path: Path) -> str:
            return path.read_text(errors="replace") if path.exists() else ""

        ran = Ran(int(answer or -1), told(out), told(err))
        why = "the shell ended" if ready else f"no end after {seconds} s"
        assert answer, f"{why}: {text}\n{ran}"
        return ran

    def close(self) -> None:
        """End it and all that it started."""
        if self._bash.returncode is None:
            os.killpg(self._bash.pid, signal.SIGKILL)
            self._bash.wait()
            for pipe in (self._bash.stdin, self._bash.stdout):
                if pipe:
                    pipe.close()


@dataclass
class Walk:
    """The way through a page, or through some of its headings."""

    page: str
    shell: Shell
    headings: Sequence[str] = ()
    """All when none is named."""
    languages: Sequence[str] = RUNS
    left_out: Collection[str] = ()
    """Names of commands that are not run."""
    fill: Mapping[str, str] = field(default_factory=dict)
    exits: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    """By a command's name: its exit code, and the words of the page that say so."""
    before: Mapping[str, Callable[[], None]] = field(default_factory=dict)
    """By a command's name: what is not the reader's to do, just before it."""

    def __post_init__(self) -> None:
        known = {block.heading for block in blocks(self.page)}
        assert set(self.headings) <= known, f"no such headings: {set(self.headings) - known}, there are {known}"
        chosen = [one for one in blocks(self.page) if not self.headings or one.heading in self.headings]
        self._things = [one for one in chosen if one.language not in RUNS and set(self.languages) == set(RUNS)]
        self._todo = [
            one for one in commands(self.page) if one.block in chosen and one.block.language in self.languages
        ]
        self._used: set[str] = set()
        self.ran: dict[str, Ran] = {}
        """By its name, what a command came to."""
        text = " ".join((ROOT / self.page).read_text().split())
        for name, (_, words) in self.exits.items():
            assert words in text, f"the page does not say it: page={self.page}, command={name}, words={words}"

    def thing(self, language: str, heading: str) -> str:
        """Give a block that is no command, to be used now."""
        for one in self._things:
            if (one.language, one.heading) == (language, heading):
                self._things.remove(one)
                return self.filled(one.text)
        raise AssertionError(f"no such block, or used already: page={self.page}, heading={heading}")

    def filled(self, text: str) -> str:
        """Put in what the reader fills in."""
        for blank in sorted(self.fill, key=len, reverse=True):
            if blank in text:
                self._used.add(blank)
                text = text.replace(blank, self.fill[blank])
        return text

    def go(self, until: str | None = None) -> None:
        """Run what is left, up to the command of that name, which is not run; `…` at its end stands for the rest of it."""

        def stops(one: Command) -> bool:
            return bool(until) and (one.name == until or (until[-1] == "…" and one.name.startswith(until[:-1])))

        while self._todo and not stops(self._todo[0]):
            self._step(self._todo.pop(0))
        assert not until or self._todo, f"no such command: page={self.page}, command={until}"

    def _step(self, one: Command) -> None:
        if one.name in self.left_out:
            return
        self._used.add(one.name)
        if one.name in self.before:
            self.before[one.name]()
        code, _ = self.exits.get(one.name, (0, ""))
        text = self.filled(one.text)
        ran = self.shell.run(text)
        self.ran[one.name] = ran
        assert ran.code == code, f"{one.where}: {text}\nwanted exit code {code}, came {ran}"
        lost = missing(one.shown, ran.out + ran.err)
        assert not lost, f"{one.where}: {text}\nis shown and did not come: {lost}\n{ran}"

    def finish(self) -> None:
        """Run what is left, and see that nothing was forgotten."""
        self.go()
        assert not self._things, f"blocks that nobody looked at: {[(one.page, one.line) for one in self._things]}"
        unused = {*self.fill, *self.exits, *self.before} - self._used
        assert not unused, f"fits nothing on the page: page={self.page}, entries={unused}"


def wait_until(condition: Callable[[], object], *, what: str, seconds: float = 60) -> None:
    """Wait for what another process does."""
    ends = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends, f"{what} did not come true in {seconds} s"
        time.sleep(0.02)
