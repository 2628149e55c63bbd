"""Helm, kustomize and the command give the same objects for the same settings, and the API server accepts them.

Helm renders without a cluster here; it installs, upgrades, rolls back and uninstalls on a real one.
"""

import json
import os
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from longshore.cli.install import command as install
from longshore.errors import UsageError
from longshore.install.apply import FIELD_MANAGER, resource_for
from longshore.install.chart import kustomize
from longshore.install.release import objects
from longshore.install.values import merged
from longshore.kube.client import KubeClient
from tests.cluster.conftest import require
from tests.support.components import ApiServer, require_tool

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "daemonset" / "chart"
KEEP = "helm.sh/resource-policy"


@pytest.fixture(scope="module")
def helm():
    require(lambda: require_tool("helm"))
    program = require_tool("helm")

    def run(*words, kubeconfig="/nonexistent", ok=True):
        with tempfile.TemporaryDirectory() as home:
            env = {"HOME": home, "KUBECONFIG": str(kubeconfig), "PATH": "/usr/bin:/bin"}
            done = subprocess.run([program, *words], capture_output=True, text=True, check=False, env=env, timeout=120)
        assert (done.returncode == 0) is ok, done.stderr
        return done.stdout + ("" if ok else done.stderr)

    return run


def loaded(text):
    # The definitions take the loader that is not compiled seconds.
    return yaml.load_all(text, Loader=yaml.CSafeLoader)


def keyed(found):
    """Objects by kind and name, without what only Helm's own ways need: its word for what is kept, and the test's hooks."""
    made = {}
    for one in found:
        if one is None:
            continue
        metadata = one["metadata"]
        annotations = metadata.get("annotations") or {}
        if "helm.sh/hook" in annotations:
            continue
        annotations.pop(KEEP, None)
        if not annotations:
            metadata.pop("annotations", None)
        made[one["kind"], metadata["name"]] = one
    return made


def rendered(helm, values, namespace="apart"):
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        # JSON quotes every string; bare words such as `N` are truths to Helm and none to Python's YAML.
        json.dump(values, file, ensure_ascii=False)
        file.flush()
        crds = () if values.get("crds") == {"install": False} else ("--include-crds",)
        return keyed(loaded(helm("template", "rel", str(CHART), "-n", namespace, "-f", file.name, *crds)))


TEXT = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "S"), include_characters=" {}%\"'\n"), max_size=12
)
# What is Kubernetes' own to the last field, and what must fit to something else: named here, for no schema says it.
CHOSEN = {
    "global": [{}],
    "agent.affinity": [{}, {"nodeAffinity": {}}, {"podAntiAffinity": {}}],
    "agent.bufferMemory": ["64MiB", "100000KiB", "384MiB", "1GiB"],
    "agent.cacheHostPath": ["", "", "/var/lib/longshore", "/var/lib/kubelet/pods/cache"],
    "agent.cacheLimit": ["0MiB", "4096MiB", "5GiB", "7GiB"],
    "agent.cacheSizeLimit": ["6Gi", "6000Mi", "999999Gi"],
    "agent.extraVolumes": [[], [{"name": "extra", "emptyDir": {}}]],
    "agent.extraVolumeMounts": [[], [{"name": "tmp", "mountPath": "/more"}]],
    "agent.resources": [{}, {"limits": {"memory": "1Gi", "cpu": 2}}, {"requests": {"cpu": 0.5}}],
    "server.resources": [
        {"requests": {"cpu": "0.1", "memory": "64Mi"}},
        {"limits": {"cpu": 2, "ephemeral-storage": "1G"}},
    ],
    "server.affinity": [{}, {"nodeAffinity": {}}],
    "server.extraVolumes": [[], [{"name": "extra", "emptyDir": {}}]],
    "server.extraVolumeMounts": [[], [{"name": "tmp", "mountPath": "/more"}]],
    "agent.seccompProfile": [{}, {"type": "Localhost", "localhostProfile": "a/b.json"}, {"type": "Localhost"}],
}
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def strings(node):
    """Texts that a node of the schema accepts. Patterns are searched for, and end where Go and Rust say that a text ends."""
    if "pattern" not in node:
        return TEXT
    longest = node.get("maxLength", 1 << 20)
    found = st.from_regex(re.compile(node["pattern"], re.ASCII), fullmatch=True)
    return found.filter(lambda text: len(text) <= longest and not text.endswith("\n"))


def drawn(node, where=""):
    """Whatever a node of the chart's schema accepts: written against the words that occur in it, and no others."""
    if where in CHOSEN:
        return st.sampled_from(CHOSEN[where])
    match node:
        case {"$ref": name}:
            return drawn(SCHEMA["$defs"][name.rpartition("/")[2]], where)
        case {"enum": values}:
            return st.sampled_from(values)
        case {"const": value}:
            return st.just(value)
        case {"anyOf": shapes}:
            return st.one_of([drawn(one, where) for one in shapes])
        case {"type": "boolean"}:
            return st.booleans()
        case {"type": "integer", "minimum": least, "maximum": most}:
            return st.integers(least, most)
        case {"type": "number"}:
            return st.sampled_from([0.001, 0.25, 1.5, 3.141592])
        case {"type": "string"}:
            return strings(node)
        case {"type": "array", "items": items}:
            key = json.dumps if node.get("uniqueItems") else None
            return st.lists(drawn(items, where + "[]"), max_size=2, unique_by=key)
        case {"type": "object", "properties": inner}:
            assert node["additionalProperties"] is False, where
            place = where + "." if where else ""
            found = {name: drawn(one, place + name) for name, one in inner.items()}
            must = node.get("required", [])
            return st.fixed_dictionaries({name: found.pop(name) for name in must}, optional={**found})
        case {"type": "object", "additionalProperties": {"type": "string"} as inner}:
            names = node.get("propertyNames", {})
            taken = names.get("not", {}).get("enum", [])
            keys = strings(names) if "pattern" in names else TEXT.filter(bool)
            return st.dictionaries(keys.filter(lambda key: key not in taken), strings(inner), max_size=2)
        case {"type": "object", "additionalProperties": False}:
            return st.just({})
    raise AssertionError(f"a setting of a shape that is not drawn: {where}: {node}")


def judged(api, seen, one):
    """Have the server judge an object, as an install would apply it, and keep nothing. Each is asked for once."""
    text = json.dumps(one, sort_keys=True)
    if text not in seen:
        api.apply(
            resource_for(one),
            one,
            namespace=one["metadata"].get("namespace"),
            field_manager=FIELD_MANAGER,
            dry_run=True,
        )
        seen.add(text)


@pytest.fixture(scope="module")
def judge():
    """Give a server of its own: it has our definitions, and stands in for those of the Prometheus operator, which hold for every field."""
    require(lambda: require_tool("kube-apiserver"))
    with ApiServer() as own:
        own.kubectl("create", "namespace", "apart")
        own.kubectl("apply", "--server-side", "-f", str(ROOT / "daemonset" / "crds"))
        for plural, kind in (("podmonitors", "PodMonitor"), ("prometheusrules", "PrometheusRule")):
            anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
            version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": anything}}
            spec = {"group": "monitoring.coreos.com", "scope": "Namespaced", "versions": [version]}
            spec["names"] = {"plural": plural, "singular": kind.lower(), "kind": kind}
            body = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "spec": spec}
            body["metadata"] = {"name": f"{plural}.monitoring.coreos.com"}
            own.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(body))
        own.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        with KubeClient.connect(str(own.kubeconfig), user_agent="test") as api:
            seen = set()
            yield lambda one: judged(api, seen, one)


# The same ones each time, unless a seed is given: for a long run by hand, of others.
EXAMPLES = int(os.environ.get("LONGSHORE_CHART_EXAMPLES", "25"))
SEED = os.environ.get("LONGSHORE_CHART_SEED")
# Of what is drawn so much at least is no contradiction, so that the server has something to judge; the others are refused before by both.
# Of 150 by a seed it was nine tenths.
JUDGED_SHARE = 0.6


def compared(helm, judge, values):
    """Hold what Helm and the command make of the same settings against one another, and have the server judge it; tells how that ended."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(values, file, ensure_ascii=False)
        file.flush()
        done = CliRunner().invoke(install, ["--dry-run", "-o", "yaml", "-n", "apart", "-f", file.name])
    if isinstance(done.exception, UsageError):
        # What goes together no schema can say: the chart refuses it by the same words.
        said = str(done.exception)
        assert said.startswith("settings do not go together: ")
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            json.dump(values, file, ensure_ascii=False)
            file.flush()
            assert said in helm("template", "rel", str(CHART), "-f", file.name, ok=False)
        return "refused by both"
    assert done.exit_code == 0, done.exception
    found = keyed(loaded(done.output))
    if values.get("namespace", {}).get("create") is None:
        found.pop(("Namespace", "apart"), None)
    by_helm = rendered(helm, values)
    assert by_helm.keys() == found.keys()
    for key, one in found.items():
        assert by_helm[key] == one
    for one in found.values():
        judge(one)
    assert {kind for kind, _name in found} >= {"DaemonSet", "ClusterRole"}
    return "judged by the server"


@pytest.mark.timeout(120 + 10 * EXAMPLES)
def test_what_the_schema_accepts_is_the_same_by_helm_and_command_and_the_server_accepts_it(helm, judge):
    """More of them, and others each time: LONGSHORE_CHART_EXAMPLES=150 LONGSHORE_CHART_SEED=7 pytest tests/cluster/test_chart.py -k schema_accepts -s."""
    ends = Counter()

    @given(values=drawn(SCHEMA))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=SEED is None,
        database=None,
        # Shrinking asks the server hundreds of times; its answer names the object and the field.
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    def go(values):
        ends[compared(helm, judge, values)] += 1

    (go if SEED is None else seed(int(SEED))(go))()
    print(f"combinations of settings: {dict(ends)}")
    assert ends.total() >= EXAMPLES
    assert ends["judged by the server"] >= JUDGED_SHARE * ends.total(), ends


def test_definitions_are_the_same_too(helm):
    found = {key: one for key, one in rendered(helm, {}).items() if key[0] == "CustomResourceDefinition"}
    wanted = keyed(objects(merged(), namespace="apart"))
    assert found and found == {key: one for key, one in wanted.items() if key[0] == "CustomResourceDefinition"}


def test_kustomize_gives_what_the_command_gives(kubectl):
    found = keyed(loaded(kubectl("kustomize", str(ROOT / "daemonset"))))
    assert found == keyed(objects(merged({"namespace": {"create": True}}), namespace="velero"))
    assert set(kustomize()) >= {"kustomization.yaml", "base/agent.yaml"}


@pytest.mark.parametrize(
    "values",
    [
        {"agent": {"concurency": 3}},
        {"agent": {"concurrency": 0}},
        {"image": {"digest": "sha256:12"}},
        {"location": {"provider": "ftp"}},
        {"agent": {"podLabels": {"name": "another"}}},
    ],
)
def test_schema_refuses_what_the_command_refuses(helm, values, tmp_path):
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(values))
    said = helm("template", "rel", str(CHART), "-f", str(file), ok=False)
    assert "don't meet the specifications of the schema" in said
    with pytest.raises(UsageError):
        merged(values)


@pytest.mark.parametrize(
    "layer",
    [
        {"cacheLimit": "10GiB", "cacheHostPath": ""},
        {"cacheHostPath": "/var/lib/kubelet/pods"},
        {"bufferMemory": "1GiB", "resources": {"limits": {"memory": "1.1Gi"}}},
        {"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1999m"}}},
        {"extraEnv": [{"name": "HOME", "value": "/"}]},
        {"extraEnv": [{"name": "A", "value": "b"}, {"name": "A", "value": "c"}]},
        {"seccompProfile": {"type": "RuntimeDefault", "localhostProfile": "a.json"}},
    ],
)
def test_chart_refuses_what_does_not_go_together_by_the_same_words(helm, layer, tmp_path):
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"agent": layer}))
    with pytest.raises(UsageError) as caught:
        merged({"agent": layer})
    assert str(caught.value) in helm("template", "rel", str(CHART), "-f", str(file), ok=False)


def test_helm_lint_finds_nothing(helm):
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART))


def test_helm_installs_upgrades_and_uninstalls(helm, kubectl):
    with ApiServer() as own, own.client() as api:

        def word(*words):
            return helm(*words, "-n", "velero", kubeconfig=own.kubeconfig)

        said = word(
            "install", "ls", str(CHART), "--create-namespace", "--set", "location.enabled=true,location.bucket=b"
        )
        assert "pod-security.kubernetes.io/enforce=privileged" in said and "recovery.key" in said
        apps, custom = client.AppsV1Api(api), client.CustomObjectsApi(api)
        assert apps.read_namespaced_daemon_set("node-agent", "velero")
        word(
            "upgrade",
            "ls",
            str(CHART),
            "--set",
            "agent.concurrency=5,server.enabled=false,location.enabled=true,location.bucket=c",
        )
        assert (
            "--concurrency=5"
            in apps.read_namespaced_daemon_set("node-agent", "velero").spec.template.spec.containers[0].args
        )
        with pytest.raises(ApiException, match="404"):
            apps.read_namespaced_deployment("longshore-server", "velero")

        def read():
            where = ("velero.io", "v1", "velero", "backupstoragelocations", "default")
            return custom.get_namespaced_custom_object(*where)

        assert read()["spec"]["objectStorage"]["bucket"] == "c"
        word("rollback", "ls", "1")
        assert apps.read_namespaced_deployment("longshore-server", "velero")
        word("uninstall", "ls")
        with pytest.raises(ApiException, match="404"):
            apps.read_namespaced_daemon_set("node-agent", "velero")
        # What holds data is left, and nothing hangs in deletion.
        assert not read()["metadata"].get("deletionTimestamp")
        left = json.loads(own.kubectl("get", "crd,clusterrole,validatingadmissionpolicy", "-o", "json"))["items"]
        ours = [
            one for one in left if one["metadata"].get("labels", {}).get("app.kubernetes.io/part-of") == "longshore"
        ]
        assert {one["kind"] for one in ours} == {"CustomResourceDefinition"}
        assert not [one for one in ours if one["metadata"].get("deletionTimestamp")]
        # And the command can take over where Helm left.
        word("install", "ls", str(CHART), "--set", "location.enabled=true,location.bucket=d", "--take-ownership")
        assert read()["spec"]["objectStorage"]["bucket"] == "d"
