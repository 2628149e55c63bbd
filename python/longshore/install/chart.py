"""The Helm chart and the kustomize folder, as texts by the name of their file.

Promises: the same bytes from the same source; nothing of a cluster is looked up, so `helm template` and GitOps give what `helm install` gives; what holds data
is kept by an uninstall. Definitions lie in crds/, for among the templates Helm would ask for them before it has made them, as soon as a storage location is
there too; the price is that Helm never updates them, which the notes say.
"""

from __future__ import annotations

import json
from typing import Any, Final

import yaml

from longshore.api import crdgen
from longshore.install.labels import Part
from longshore.install.notes import NOTES
from longshore.install.probe import PARTS as PROBE
from longshore.install.release import PARTS, dump, parts
from longshore.install.template import condition_text, helm_lines
from longshore.install.together import CHECKS, HELPERS
from longshore.install.values import VERSION, Values, schema, values_yaml

__all__ = ["BASE_NAMESPACE", "chart", "kustomize"]

BASE_NAMESPACE: Final = "velero"
_WRITTEN: Final = "Written by `make manifests` from python/longshore/install. Edit those instead."
_KEEP: Final = {"helm.sh/resource-policy": "keep"}
"""Helm's word for what an uninstall leaves."""


def chart() -> dict[str, str]:
    """Give every file of the Helm chart."""
    about: dict[str, Any] = {
        "apiVersion": "v2",
        "name": "longshore",
        "description": "Backup for Kubernetes volumes: Velero's API with a native data path",
        "type": "application",
        "version": VERSION,
        "appVersion": VERSION,
        "kubeVersion": ">=1.26.0-0",
        "keywords": ["backup", "restore", "velero", "volumes"],
        "annotations": {"licenses": "Apache-2.0"},
    }
    files = {
        "Chart.yaml": f"# {_WRITTEN}\n" + yaml.safe_dump(about, sort_keys=False, width=120),
        "values.yaml": values_yaml(),
        "values.schema.json": json.dumps(schema(), indent=2, ensure_ascii=False) + "\n",
        "templates/NOTES.txt": NOTES,
        "templates/_amount.tpl": f"{{{{- /* Quantities as numbers. {_WRITTEN} */ -}}}}\n{HELPERS}",
        "templates/checks.yaml": f"{{{{- /* Settings that do not go together. {_WRITTEN} */ -}}}}\n{CHECKS}",
    }
    files |= {f"crds/{name}": text for name, text in crdgen.render().items()}
    for part in (*PARTS, *PROBE):
        if part.name == "crds":
            continue
        files[f"templates/{part.name}.yaml"] = _template(part)
    return files


def _template(part: Part) -> str:
    lines = [f"{{{{- /* {part.purpose} {_WRITTEN} */ -}}}}"]
    for condition, template in part.objects:
        body = _kept(template) if part.keeps else template
        inner = ["---", *helm_lines(body)]
        if condition is None:
            lines += inner
        else:
            lines += [f"{{{{- if {condition_text(condition)} }}}}", *inner, "{{- end }}"]
    return "\n".join(lines) + "\n"


def _kept(template: dict[str, Any]) -> dict[str, Any]:
    metadata = template["metadata"]
    return {**template, "metadata": {**metadata, "annotations": {**metadata.get("annotations", {}), **_KEEP}}}


def kustomize() -> dict[str, str]:
    """Give the kustomize folder: the default settings, a file a part, the definitions from the folder beside it."""
    values = Values.model_validate({"namespace": {"create": True}})
    base = {part.name: (part, made) for part, made in parts(values, namespace=BASE_NAMESPACE)}
    _, definitions = base.pop("crds")
    files = {f"base/{name}.yaml": f"# {part.purpose} {_WRITTEN}\n" + dump(made) for name, (part, made) in base.items()}
    names = sorted(f"crds/{one['spec']['group']}_{one['spec']['names']['plural']}.yaml" for one in definitions)
    resources = [*names, *sorted(files, key=[*(f"base/{part.name}.yaml" for part in PARTS)].index)]
    about = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": resources}
    files["kustomization.yaml"] = f"# {_WRITTEN}\n" + yaml.safe_dump(about, sort_keys=False)
    return files
