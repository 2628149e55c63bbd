"""How a message must read, whatever language raised or logged it.

An error text is lower-case, has no full stop, and its variables come last: `x is longer than y: x_bytes=9, y_bytes=8`. A log message is
a capitalised constant without a full stop; what varies goes into fields. Does not know Python or Rust: a message arrives as its constant
pieces, in order, with variables between them.
"""

import re

# What may stand between and after variables: punctuation, brackets, `name=`, `name=constant`, and nothing that reads as prose.
_CONNECTOR = re.compile(r"""(?:[\s,;:/()\[\]"'`@.-]|[\w.-]+=[\w.-]*)*""")
_PLACEHOLDER = re.compile(r"%[sdrf]|\{[^{}]*\}")


def _starts_lower(text: str) -> bool:
    """Tell whether a text starts in lower case; acronyms and type names (S3, PVC, PodVolumeBackup) keep theirs."""
    word = text.split(maxsplit=1)[0] if text.strip() else ""
    return not word[:1].isupper() or any(char.isupper() or char.isdigit() for char in word[1:])


def error_faults(pieces: list[str]) -> list[str]:
    """Judge an error text given as the constant pieces around its variables (one more piece than variables)."""
    faults = []
    if not _starts_lower(pieces[0]):
        faults.append("error text starts with a capital")
    if pieces[-1].rstrip().endswith((".", "!")):
        faults.append("error text ends with a full stop")
    if any(not _CONNECTOR.fullmatch(piece) for piece in pieces[1:]):
        faults.append("error text has prose after a variable: say `what is wrong: name={value}`")
    return faults


def log_faults(message: str) -> list[str]:
    """Judge a log message."""
    faults = []
    if not message[:1].isupper():
        faults.append("log message does not start with a capital")
    if message.rstrip().endswith((".", "!")):
        faults.append("log message ends with a full stop")
    if _PLACEHOLDER.search(message):
        faults.append("log message has a placeholder: hand variables over as fields")
    return faults
