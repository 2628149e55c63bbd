"""Keys of log records are stable: what docs/reference/logs.md tells operators to filter by is what the sources write, and the other way round.

Reads the calls of our loggers out of the syntax of the product (and of the engine's macros): which message, at which level, with which fields. Holds that
against the tables of the page: no message is named that is not written, with another level or other fields; and none from level warning on is missing.
Does not know when a record is written: the tests of what writes it do.
"""

import ast
import io
import json
import re
from dataclasses import dataclass, field
from functools import cache

import pytest
from tests.unit.house.tree import ROOT, files

from longshore import logs

PAGE = ROOT / "docs" / "reference" / "logs.md"
FIRST = ("ts", "level", "logger", "msg")
OPEN = "…"
_METHODS = {one: one for one in ("debug", "info", "warning", "error", "critical")} | {"exception": "error"}
_SEVERE = {"warning", "error", "critical"}
_LOGGERS = {"_log", "log"}
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_MARKED = re.compile(r"`([^`]+)`")
_MACRO = re.compile(r'tracing::(debug|info|warn|error)!\(([^;"]*)"([^"]+)",?\s*\)')


@dataclass
class Record:
    """What is known of one message."""

    levels: set[str] = field(default_factory=set)
    fields: list[frozenset[str]] = field(default_factory=list)
    """Of each place that writes it; `…` where it adds what only the run knows."""

    def every(self):
        return frozenset().union(*self.fields)


def levels_of(function, around):
    """At which levels a call writes; empty when it is no call of a logger. A name may stand for one of two methods."""
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id in _LOGGERS:
        return {_METHODS[function.attr]} if function.attr in _METHODS else set()
    if isinstance(function, ast.Name):
        return set().union(*(levels_of(one, {}) for one in around.get(function.id, ())))
    return set()


def fields_of(call, around):
    found = set()
    for one in call.keywords:
        if one.arg is not None:
            found.add("exception" if one.arg == "exc_info" else one.arg)
            continue
        held = around.get(one.value.id, ()) if isinstance(one.value, ast.Name) else ()
        dicts = [value for value in held if isinstance(value, ast.Dict)]
        found |= {key.value for value in dicts for key in value.keys} if dicts else {OPEN}
    return found | ({"exception"} if getattr(call.func, "attr", "") == "exception" else set())


def records_in(text):
    """Of one file: each call of a logger as (line, message or None, levels, fields)."""
    for function in ast.walk(ast.parse(text)):
        if not isinstance(function, ast.FunctionDef):
            continue
        around = {}
        for one in ast.walk(function):
            if isinstance(one, ast.Assign) and isinstance(one.targets[0], ast.Name):
                either = [one.value.body, one.value.orelse] if isinstance(one.value, ast.IfExp) else [one.value]
                around.setdefault(one.targets[0].id, []).extend(either)
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and (levels := levels_of(call.func, around)):
                first = call.args[0] if call.args else None
                message = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None
                yield call.lineno, message, levels, fields_of(call, around)


@cache
def written():
    """Every message of the product's processes; those of the fake API server are no operator's."""
    found = {}
    for name in files("python/longshore/", ending=".py"):
        if "/fake/" in name:
            continue
        for line, message, levels, fields in records_in((ROOT / name).read_text()):
            assert message is not None, f"{name}:{line}: the message is not constant"
            record = found.setdefault(message, Record())
            record.levels |= levels
            record.fields.append(frozenset(fields))
    return found


@cache
def engines():
    """Every message of the engine."""
    found = {}
    for name in files("rust/engine/src/", ending=".rs"):
        for level, fields, message in _MACRO.findall((ROOT / name).read_text()):
            record = found.setdefault(message, Record())
            record.levels.add({"warn": "warning"}.get(level, level))
            parts = [part.strip() for part in fields.split(",")]
            named = (re.match(r"(\w+)\s*=|(\w+)$", part) for part in parts)
            record.fields.append(frozenset(one[1] or one[2] for one in named if one))
    return found


def rows(*columns):
    """The rows of the page's tables whose head begins with these columns, as lists of cells."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", PAGE.read_text(), re.MULTILINE):
        head, _line, *body = ([cell.strip() for cell in row.strip("|\n").split("|")] for row in table.splitlines())
        if tuple(head[: len(columns)]) == columns:
            found += body
    assert found, columns
    return found


def messages():
    return [
        (_MARKED.findall(said)[0], set(_MARKED.findall(level)), set(_MARKED.findall(fields)) | {OPEN} & set(fields))
        for said, level, fields, *_rest in rows("`msg`", "level", "fields")
    ]


@pytest.mark.parametrize(("message", "levels", "fields"), [pytest.param(*one, id=one[0]) for one in messages()])
def test_message_is_written_at_its_level_with_its_fields(message, levels, fields):
    record = written().get(message) or engines()[message]
    assert (record.levels, record.every()) == (levels, fields)


def test_page_names_each_message_from_warning_on_once():
    named = [message for message, _levels, _fields in messages()]
    severe = {message for message, record in written().items() if record.levels & _SEVERE}
    assert len(named) == len(set(named))
    assert not severe - set(named)
    assert len(severe) > 40


def test_every_record_has_the_keys_of_the_page():
    out = io.StringIO()
    logs.configure(level="info", stream=out)
    try:
        logs.get_logger("longshore.x").info("Did it")
    finally:
        logs.configure(level="warning", format="text")
    said = [_MARKED.findall(key)[0] for key, *_rest in rows("key of every record")]
    assert list(json.loads(out.getvalue())) == said == list(FIRST)


def test_fields_of_many_records_are_explained():
    """A field that three messages have means the same in each, and the page says what."""
    told = {name for cell, *_rest in rows("field") for name in _MARKED.findall(cell)}
    used = {}
    for message, record in written().items():
        for one in record.every() - {OPEN}:
            used.setdefault(one, set()).add(message)
    assert told == {name for name, users in used.items() if len(users) >= 3}


@pytest.mark.parametrize("message", sorted({*written(), *engines()}))
def test_message_and_fields_are_spelled_as_all_are(message):
    assert message[:1].isupper() and not message.endswith((".", "!", ":")) and "{" not in message
    fields = (written().get(message) or engines()[message]).every() - {OPEN}
    assert all(_NAME.fullmatch(one) for one in fields), fields
    assert not fields & set(FIRST)


def test_what_is_no_constant_or_has_other_fields_is_seen():
    text = """
def f():
    tell = _log.warning if x else _log.info
    fields = {"a": 1}
    tell("Went", b=2, **fields)
    _log.exception(f"Went {x}", **more)
    _log.error("Fell", exc_info=err)
"""
    assert [found[1:] for found in records_in(text)] == [
        ("Went", {"warning", "info"}, {"a", "b"}),
        (None, {"error"}, {OPEN, "exception"}),
        ("Fell", {"error"}, {"exception"}),
    ]
