"""Style of Python sources, found by walking their syntax trees.

Rules take a file's text and give trespasses. They see calls of loggers by the name of what is called (`log`, `_log`, `logger`,
`self._log`, `log.bind(…)`), and errors by the name of the class that is called (`…Error`); text that a rule cannot see through, such as
a variable, is left to readers.
"""

import ast
import re
from collections.abc import Iterator

from tests.unit.house.tree import Trespass
from tests.unit.house.wording import error_faults, log_faults

_LOGGER_NAME = re.compile(r"_?(?:log|logger|logging)", re.IGNORECASE)
_LOG_METHODS = frozenset({"debug", "info", "warning", "error", "critical", "exception"})
_VARIABLE = "\0"


def _last_name(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Call(func=ast.Attribute(value=inner, attr="bind")):
            return _last_name(inner)
        case _:
            return ""


def _calls(text: str) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call))


def _pieces(node: ast.expr) -> list[str] | None:
    """Give the constant pieces around the variables of a string expression, or None when it is none."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=[ast.FormattedValue(value=ast.Name(id="what")), *rest]) if rest:
            return _pieces(ast.JoinedStr(values=rest))
        case ast.JoinedStr(values=values):
            whole = "".join(str(part.value) if isinstance(part, ast.Constant) else _VARIABLE for part in values)
            return whole.split(_VARIABLE)
        case _:
            return None


def log_messages(text: str) -> list[Trespass]:
    """Log messages are constants, capitalised, without a full stop; variables are keyword fields."""
    found = []
    for call in _calls(text):
        if not (isinstance(call.func, ast.Attribute) and call.func.attr in _LOG_METHODS):
            continue
        if not _LOGGER_NAME.fullmatch(_last_name(call.func.value)):
            continue
        match call.args:
            case [ast.Constant(value=str(message))]:
                found += [Trespass(call.lineno, fault) for fault in log_faults(message)]
            case _:
                found.append(Trespass(call.lineno, "log call needs one constant message, and fields by keyword"))
    return found


def error_texts(text: str) -> list[Trespass]:
    """Error texts start in lower case, have no full stop and end with their variables; a `{what}` may name the subject first."""
    found = []
    for call in _calls(text):
        if not _last_name(call.func).endswith("Error") or not call.args:
            continue
        message = call.args[0]
        if (pieces := _pieces(message)) is not None:
            found += [Trespass(call.lineno, fault) for fault in error_faults(pieces)]
        elif isinstance(message, ast.BinOp) and any(_pieces(side) for side in (message.left, message.right)):
            found.append(Trespass(call.lineno, "error text is pieced together: write one string"))
    return found


def opening_or_nothing(text: str) -> str:
    """Give the module's docstring; nothing when there is none, or when this is no Python."""
    try:
        return ast.get_docstring(ast.parse(text)) or ""
    except SyntaxError:
        return ""
