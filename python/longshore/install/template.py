"""Objects with references to settings in them, and the two things that can be done with such an object: resolve it, or write it as a Helm template.

The nodes are few, so that both readings stay equal by construction: a value, a text around values, a choice, a part that is there on a condition, and entries
that are spliced in. Conditions hold what Go's templates hold to be true: not empty, not zero, not false.

Promises: a text of ours that looks like template code comes out of Helm as it stands here; every value is written as JSON, so none can break out of its place.

It does not know which objects or settings there are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

__all__ = [
    "NAMESPACE",
    "SPLICE",
    "All",
    "Choose",
    "Contains",
    "Encoded",
    "Equals",
    "Not",
    "Splice",
    "Text",
    "Value",
    "When",
    "condition_text",
    "helm_lines",
    "holds",
    "resolve",
]

SPLICE: Final = "+"
"""As a key of a mapping: its value is a :class:`Value` that names a mapping, whose entries are put there."""
_ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class Value:
    """A setting, by its path: `agent.logLevel`."""

    path: str


@dataclass(frozen=True, slots=True)
class _Namespace:
    """Where it is installed."""


NAMESPACE: Final = _Namespace()


@dataclass(frozen=True, slots=True)
class Text:
    """A text with `%v` for each part."""

    form: str
    parts: tuple[Value | _Namespace, ...]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A setting's text in base64, as a Secret's data have it."""

    of: Value


@dataclass(frozen=True, slots=True)
class Not:
    """The contrary."""

    of: Value | Equals | Contains | All


@dataclass(frozen=True, slots=True)
class Equals:
    """Whether a setting is that very text."""

    of: Value
    to: str


@dataclass(frozen=True, slots=True)
class Contains:
    """Whether that text is part of a setting's."""

    of: Value
    part: str


@dataclass(frozen=True, slots=True)
class All:
    """Whether all hold."""

    of: tuple[Condition, ...]


Condition = Value | Not | Equals | Contains | All


@dataclass(frozen=True, slots=True)
class When:
    """A part that is there if a condition holds: the value of a key, or an element of a list."""

    test: Condition
    then: Any


@dataclass(frozen=True, slots=True)
class Choose:
    """One of two scalars."""

    test: Condition
    then: Any
    otherwise: Any


@dataclass(frozen=True, slots=True)
class Splice:
    """Elements of a list setting, put into a list."""

    of: Value


# -- with settings ---------------------------------------------------------------------------------------------------------------


def _look_up(path: str, values: Mapping[str, Any]) -> Any:
    found: Any = values
    for part in path.split("."):
        found = found[part]
    return found


def holds(test: Condition, values: Mapping[str, Any]) -> bool:
    """Tell whether a condition holds with these settings."""
    match test:
        case Value(path):
            return bool(_look_up(path, values))
        case Not(of):
            return not holds(of, values)
        case Equals(of, to):
            return bool(_look_up(of.path, values) == to)
        case Contains(of, part):
            return part in str(_look_up(of.path, values))
        case All(of):
            return all(holds(one, values) for one in of)


def _printed(part: Value | _Namespace, values: Mapping[str, Any], namespace: str) -> str:
    if not isinstance(part, Value):
        return namespace
    found = _look_up(part.path, values)
    return str(found).lower() if isinstance(found, bool) else str(found)


def resolve(node: Any, values: Mapping[str, Any], *, namespace: str) -> Any:
    """Put settings in.

    Args:
        node: what stands in an object.
        values: all settings, as values.yaml lays them out.
        namespace: where it is installed.

    Returns:
        Plain mappings, lists and scalars.
    """
    found = _resolved(node, values, namespace)
    return None if found is _ABSENT else found


def _resolved(node: Any, values: Mapping[str, Any], namespace: str) -> Any:
    match node:
        case Value(path):
            return _look_up(path, values)
        case _Namespace():
            return namespace
        case Text(form, parts):
            pieces = form.split("%v")
            said = [_printed(part, values, namespace) for part in parts]
            return pieces[0] + "".join(text + piece for text, piece in zip(said, pieces[1:], strict=True))
        case Encoded(of):
            import base64

            return base64.b64encode(str(_look_up(of.path, values)).encode()).decode()
        case Choose(test, then, otherwise):
            return _resolved(then if holds(test, values) else otherwise, values, namespace)
        case When(test, then):
            return _resolved(then, values, namespace) if holds(test, values) else _ABSENT
        case Mapping():
            made: dict[str, Any] = {}
            for key, inner in node.items():
                if key == SPLICE:
                    made |= _look_up(inner.path, values)
                elif (found := _resolved(inner, values, namespace)) is not _ABSENT:
                    made[key] = found
            return made
        case list():
            items: list[Any] = []
            for inner in node:
                if isinstance(inner, Splice):
                    items += _look_up(inner.of.path, values)
                elif (found := _resolved(inner, values, namespace)) is not _ABSENT:
                    items.append(found)
            return items
        case _:
            return node


# -- as a Helm template ------------------------------------------------------------------------------------------------------------


def _path(part: Value | _Namespace) -> str:
    return f".Values.{part.path}" if isinstance(part, Value) else ".Release.Namespace"


def condition_text(test: Condition) -> str:
    """Write a condition as Helm's templates have it."""
    match test:
        case Value():
            return _path(test)
        case Not(of):
            return f"(not {condition_text(of)})"
        case Equals(of, to):
            return f"(eq {_path(of)} {json.dumps(to)})"
        case Contains(of, part):
            return f"(contains {json.dumps(part)} {_path(of)})"
        case All(of):
            return f"(and {' '.join(condition_text(one) for one in of)})"


def _scalar(node: Any) -> str:
    match node:
        case Value() | _Namespace():
            return f"{{{{ {_path(node)} | toJson }}}}"
        case Text(form, parts):
            return f"{{{{ printf {json.dumps(form)} {' '.join(_path(part) for part in parts)} | toJson }}}}"
        case Encoded(of):
            return f"{{{{ {_path(of)} | b64enc | toJson }}}}"
        case Choose(test, then, otherwise):
            return f"{{{{ if {condition_text(test)} }}}}{_scalar(then)}{{{{ else }}}}{_scalar(otherwise)}{{{{ end }}}}"
        case _:
            # What another reader takes for a template (an alert's `{{ $labels }}`) is no template of Helm's.
            return json.dumps(node, ensure_ascii=False).replace("{{", '{{ "{{" }}')


def helm_lines(node: Any, *, indent: int = 0) -> Iterator[str]:
    """Write a mapping or a list as lines of a Helm template.

    Args:
        node: a mapping or a list that has at least one entry without a condition: an empty block would read as null.
        indent: blanks before each line that is no template code.
    """
    blank = " " * indent
    if isinstance(node, Mapping):
        assert any(key != SPLICE and not isinstance(inner, When) for key, inner in node.items()), node
        for key, inner in node.items():
            if key == SPLICE:
                yield f"{{{{- with {_path(inner)} }}}}"
                yield f"{{{{- toYaml . | nindent {indent} }}}}"
                yield "{{- end }}"
                continue
            yield from _guarded(inner, lambda body, key=key: _entry(f"{blank}{_key(key)}:", body, indent))
        return
    assert any(not isinstance(inner, When | Splice) for inner in node), node
    for inner in node:
        if isinstance(inner, Splice):
            yield f"{{{{- with {_path(inner.of)} }}}}"
            yield f"{{{{- toYaml . | nindent {indent} }}}}"
            yield "{{- end }}"
            continue
        yield from _guarded(inner, lambda body: _entry(f"{blank}-", body, indent))


def _guarded(node: Any, write: Any) -> Iterator[str]:
    if not isinstance(node, When):
        yield from write(node)
        return
    yield f"{{{{- if {condition_text(node.test)} }}}}"
    yield from _guarded(node.then, write)
    yield "{{- end }}"


def _entry(head: str, node: Any, indent: int) -> Iterator[str]:
    if isinstance(node, Mapping | list) and node:
        yield head
        yield from helm_lines(node, indent=indent + 2)
    elif isinstance(node, str) and "\n" in node:
        yield f"{head} |{'' if node.endswith(chr(10)) else '-'}"
        for line in node.rstrip("\n").split("\n"):
            escaped = line.replace("{{", '{{ "{{" }}')
            yield f"{' ' * (indent + 2)}{escaped}" if line else ""
    else:
        yield f"{head} {_scalar(node)}"


def _key(key: str) -> str:
    return key if key.replace("-", "").replace("_", "").isalnum() else json.dumps(key)
