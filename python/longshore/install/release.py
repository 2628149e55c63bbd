"""All parts of an installation, in the order in which they are applied, and the objects that given settings make of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import yaml

from longshore.install import access, location, monitoring, policy, workloads
from longshore.install.labels import Part
from longshore.install.template import holds, resolve
from longshore.install.values import Values

__all__ = ["PARTS", "dump", "objects", "parts"]

_FIRST: Final = ("namespace", "crds", "location")
PARTS: Final[tuple[Part, ...]] = (
    *sorted(location.PARTS, key=lambda part: _FIRST.index(part.name)),
    *access.PARTS,
    *policy.PARTS,
    *workloads.PARTS,
    *monitoring.PARTS,
)
"""What others stand on comes first; an uninstall goes the other way."""


def parts(values: Values, *, namespace: str) -> Iterator[tuple[Part, list[dict[str, Any]]]]:
    """Give each part with the objects that these settings make of it; parts without any are left out."""
    tree = values.tree()
    for part in PARTS:
        made = [
            resolve(template, tree, namespace=namespace)
            for condition, template in part.objects
            if condition is None or holds(condition, tree)
        ]
        if made:
            yield part, made


def objects(values: Values, *, namespace: str) -> list[dict[str, Any]]:
    """Give all objects, in the order in which they are applied."""
    return [one for _, made in parts(values, namespace=namespace) for one in made]


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks; nothing is abbreviated by anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - none of them
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text and not any(line != line.rstrip() for line in text.split("\n")) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def dump(made: list[dict[str, Any]]) -> str:
    """Write objects as one stream of YAML documents."""
    return str(yaml.dump_all(made, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True, explicit_start=True))
