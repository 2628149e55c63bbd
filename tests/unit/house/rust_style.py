"""Style of Rust sources, found by expressions and a small scanner for strings and brackets.

Rules take a file's text and give trespasses. They see `tracing`'s macros, `#[error("…")]` of thiserror, and string literals handed to
`…Error::something(…)`. The scanner knows strings, raw strings, comments and nesting, which is enough for calls that rustfmt has laid out;
what it does not know is macros that write other macros.
"""

import re
from collections.abc import Iterator

from tests.unit.house.tree import Trespass
from tests.unit.house.wording import error_faults, log_faults

_TRACING = re.compile(r"(?<![\w!])(?:tracing::)?(?:trace|debug|info|warn|error)!\(")
_ERROR_ATTRIBUTE = re.compile(r"#\[error\(")
_ERROR_CALL = re.compile(r"\b\w*Error::\w+\(")
_TOKEN = re.compile(
    r"""(?P<comment>//[^\n]*|/\*.*?\*/)|(?P<raw>b?r(?P<hashes>\#*)".*?"(?P=hashes))|(?P<string>b?"(?:\\.|[^"\\])*")"""
    r"""|(?P<char>'(?:\\.|[^'\\\n])')|(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<comma>,)""",
    re.DOTALL,
)
_LITERAL = re.compile(r'\s*(?:format!\(\s*)?"((?:\\.|[^"\\])*)"(.*)', re.DOTALL)
_CONTINUATION = re.compile(r"\\\n\s*")
_VARIABLE = re.compile(r"\{[^{}]*\}")
_UNSAFE = re.compile(r"\bunsafe\s*(?:\{|fn|impl|extern)")
_WORLD = re.compile(
    r"\b(?:(?:std|rustix)::fs\b|thread::(?:spawn|sleep|scope|Builder)\b|(?:SystemTime|Instant)::now\b"
    r"|(?:std::)?env::vars?\b|getrandom\b|std::process::|std::net\b)"
)
# Modules for tests stand at the end of a file.
_TESTS = re.compile(r"^\s*#\[cfg\(test\)\]\s*(?:#\[[^\]]*\]\s*)*mod \w+ \{", re.MULTILINE)
_SUBJECT = re.compile(r"^\{what\} ")


def without_comments(text: str) -> str:
    """Blank out comments, keeping every line where it is."""
    return _TOKEN.sub(lambda token: re.sub(r"[^\n]", " ", token[0]) if token["comment"] else token[0], text)


def _arguments(text: str, start: int) -> list[str]:
    """Split what stands in the brackets opened just before `start` at its outermost commas."""
    parts, depth, begin = [], 1, start
    for token in _TOKEN.finditer(text, start):
        if token["open"]:
            depth += 1
        elif token["close"]:
            depth -= 1
        if depth == 0 or (depth == 1 and token["comma"]):
            parts.append(text[begin : token.start()])
            begin = token.end()
        if depth == 0:
            break
    return [part.strip() for part in parts if part.strip()]


def _found(pattern: re.Pattern[str], text: str) -> Iterator[tuple[int, list[str]]]:
    code = without_comments(text)
    for match in pattern.finditer(code):
        yield code.count("\n", 0, match.start()) + 1, _arguments(code, match.end())


def _literal(argument: str) -> str | None:
    """Give the text of an argument that is a string literal or a `format!` of one."""
    match = _LITERAL.match(argument)
    return None if match is None else _CONTINUATION.sub("", match[1])


def log_messages(text: str) -> list[Trespass]:
    """Log messages are constants, capitalised, without a full stop, after the fields."""
    found = []
    for line, arguments in _found(_TRACING, text):
        message = _literal(arguments[-1]) if arguments else None
        if message is None or arguments[-1].startswith("format!"):
            found.append(Trespass(line, "log macro does not end with one constant message: put fields before it"))
        else:
            found += [Trespass(line, fault) for fault in log_faults(message)]
    return found


def error_texts(text: str) -> list[Trespass]:
    """Error texts start in lower case, have no full stop and end with their variables; a `{what}` may name the subject first."""
    found = []
    for line, arguments in (*_found(_ERROR_ATTRIBUTE, text), *_found(_ERROR_CALL, text)):
        for message in filter(None, map(_literal, arguments)):
            pieces = _VARIABLE.split(_SUBJECT.sub("", message.replace("{{", "").replace("}}", "")))
            found += [Trespass(line, fault) for fault in error_faults(pieces)]
    return found


def _bare(text: str) -> str:
    """Blank out comments and what stands in strings."""
    return re.sub(r'"(?:\\.|[^"\\])*"', '""', without_comments(text))


def unsafe_code(text: str) -> list[Trespass]:
    """No `unsafe` in code."""
    code = _bare(text)
    return [Trespass(code.count("\n", 0, m.start()) + 1, "unsafe code") for m in _UNSAFE.finditer(code)]


def touches_world(text: str) -> list[Trespass]:
    """No files, threads, clock, chance or environment outside tests: they are handed in."""
    code = _TESTS.split(_bare(text), maxsplit=1)[0]
    return [Trespass(code.count("\n", 0, m.start()) + 1, f"touches the world: {m[0]}") for m in _WORLD.finditer(code)]


def opening(text: str) -> str:
    """Give the `//!` lines with which the file starts, or nothing."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("//!"):
            break
        lines.append(line.removeprefix("//!").strip())
    return "\n".join(lines).strip()
