"""Label and field selectors as the API server reads them. Pure.

Labels: `a=b`, `a==b`, `a!=b`, `a in (x,y)`, `a notin (x,y)`, `a`, `!a`, joined by commas; `!=` and `notin` hold as well for objects without the label.
Fields: `path=value`, `path==value`, `path!=value`, joined by commas; an absent field is the empty string.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from longshore.kube.resource import JsonObject

__all__ = ["SelectorError", "field_selector", "fields_named", "label_selector"]

Predicate = Callable[[JsonObject], bool]
_KEY: Final = r"[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?"
_VALUE: Final = r"(?:[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)?"
_SET: Final = re.compile(rf"^({_KEY})\s+(in|notin)\s+\(([^()]*)\)$")
_EQUALITY: Final = re.compile(rf"^({_KEY})\s*(==|=|!=)\s*({_VALUE})$")
_EXISTS: Final = re.compile(rf"^(!?)\s*({_KEY})$")


class SelectorError(Exception):
    """The selector cannot be read."""


def label_selector(text: str) -> Predicate:
    """Compile a label selector; the empty one holds for everything."""
    tests = [_requirement(part.strip()) for part in _split(text)]
    return lambda obj: all(test(obj.get("metadata", {}).get("labels") or {}) for test in tests)


def _split(text: str) -> list[str]:
    """Split at commas that are not inside parentheses."""
    parts = re.split(r",(?![^(]*\))", text)
    return [part for part in parts if part.strip()]


def _requirement(text: str) -> Callable[[dict[str, str]], bool]:
    if found := _SET.match(text):
        key, operator, listed = found.groups()
        values = {value.strip() for value in listed.split(",")}
        if operator == "in":
            return lambda labels: key in labels and labels[key] in values
        return lambda labels: labels.get(key) not in values
    if found := _EQUALITY.match(text):
        key, operator, value = found.groups()
        if operator == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _EXISTS.match(text):
        absent, key = found.groups()
        return lambda labels: (key in labels) != bool(absent)
    raise SelectorError(f"unable to parse requirement: {text}")


def _field_terms(text: str) -> list[tuple[str, str, str]]:
    terms = []
    for part in filter(None, text.split(",")):
        found = re.match(r"^([^=!]+)(==|=|!=)(.*)$", part)
        if found is None:
            raise SelectorError(f"invalid field selector: {part}")
        terms.append((found[1], found[2], found[3]))
    return terms


def fields_named(text: str) -> set[str]:
    """The paths that a field selector asks about."""
    return {path for path, _operator, _value in _field_terms(text)}


def field_selector(text: str) -> Predicate:
    """Compile a field selector; the empty one holds for everything."""
    terms = _field_terms(text)
    return lambda obj: all((_field(obj, path) == value) == (operator != "!=") for path, operator, value in terms)


def _field(obj: Any, path: str) -> str:
    for part in path.split("."):
        obj = obj.get(part) if isinstance(obj, dict) else None
    if isinstance(obj, bool):
        return "true" if obj else "false"
    return "" if obj is None else str(obj)
