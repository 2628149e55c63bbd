"""Settings go where they belong, and nothing else does."""

import pytest

from longshore.install.template import (
    NAMESPACE,
    SPLICE,
    All,
    Choose,
    Contains,
    Encoded,
    Equals,
    Not,
    Splice,
    Text,
    Value,
    When,
    helm_lines,
    resolve,
)

VALUES = {"a": {"on": True, "off": False, "name": "n", "number": 8085, "map": {"k": "v"}, "list": ["x"], "empty": ""}}


def put(node):
    return resolve(node, VALUES, namespace="here")


@pytest.mark.parametrize(
    ("node", "made"),
    [
        ({"a": Value("a.name"), "b": NAMESPACE}, {"a": "n", "b": "here"}),
        ({"a": Text("p=%v,%v", (Value("a.number"), Value("a.on")))}, {"a": "p=8085,true"}),
        ({"a": When(Value("a.off"), 1), "b": When(Value("a.on"), 2)}, {"b": 2}),
        (
            {"a": [1, When(Value("a.empty"), 2), When(Not(Value("a.empty")), 3), Splice(Value("a.list"))]},
            {"a": [1, 3, "x"]},
        ),
        ({"z": 1, SPLICE: Value("a.map")}, {"z": 1, "k": "v"}),
        ({"a": Choose(Equals(Value("a.name"), "n"), 1, 2)}, {"a": 1}),
        ({"a": When(All((Value("a.on"), Value("a.off"))), 1), "b": 0}, {"b": 0}),
        ({"a": [1, When(Contains(Value("a.name"), "n"), 2), When(Contains(Value("a.name"), "m"), 3)]}, {"a": [1, 2]}),
        ({"a": Encoded(Value("a.name"))}, {"a": "bg=="}),
    ],
)
def test_settings_are_put_in(node, made):
    assert put(node) == made


def test_conditions_become_blocks():
    node = {
        "a": When(Value("a.on"), {"b": Value("a.name")}),
        "c": "{{ $labels.x }} }}",
        "l": [1, Splice(Value("a.list"))],
    }
    assert list(helm_lines(node)) == [
        "{{- if .Values.a.on }}",
        "a:",
        "  b: {{ .Values.a.name | toJson }}",
        "{{- end }}",
        'c: "{{ "{{" }} $labels.x }} }}"',
        "l:",
        "  - 1",
        "{{- with .Values.a.list }}",
        "{{- toYaml . | nindent 2 }}",
        "{{- end }}",
    ]


def test_block_that_could_be_empty_is_refused():
    with pytest.raises(AssertionError):
        list(helm_lines({"a": {"b": When(Value("a.on"), 1)}}))
