"""Helm, kustomize and the command give the same objects for the same settings, and the API server accepts them.

Helm renders without a cluster here; it installs, upgrades, rolls back and uninstalls on a real one.
"""

import json
import subprocess
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from longshore.errors import UsageError
from longshore.install.chart import kustomize
from longshore.install.release import objects
from longshore.install.values import merged
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
        return keyed(yaml.safe_load_all(helm("template", "rel", str(CHART), "-n", namespace, "-f", file.name, *crds)))


text = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S"), include_characters=" {}%\"'"), max_size=12)
word = st.from_regex(r"[a-z][a-z0-9-]{0,8}[a-z0-9]", fullmatch=True)
texts = st.dictionaries(word, text, max_size=3)
env = st.lists(st.fixed_dictionaries({"name": word, "value": text}), max_size=2)
SETTINGS = st.fixed_dictionaries(
    {},
    optional={
        "image": st.fixed_dictionaries(
            {"repository": word, "tag": word}, optional={"digest": st.just("sha256:" + "a" * 64)}
        ),
        "imagePullSecrets": st.lists(st.fixed_dictionaries({"name": word}), max_size=2),
        "namespace": st.fixed_dictionaries({"create": st.booleans()}),
        "crds": st.just({"install": False}),
        "policy": st.fixed_dictionaries({"enabled": st.booleans()}),
        "agent": st.fixed_dictionaries(
            {},
            optional={
                "restores": st.booleans(),
                "extraCapabilities": st.lists(st.sampled_from(["SETFCAP", "MKNOD"]), unique=True),
                "kubeletRootDir": st.just("/data/kubelet"),
                "concurrency": st.integers(1, 256),
                "cacheHostPath": st.sampled_from(["", "/var/cache/longshore"]),
                "priorityClassName": st.one_of(st.just(""), word),
                "terminationGracePeriodSeconds": st.integers(30, 2_000_000),
                "resources": st.sampled_from([{"limits": {"memory": "1Gi", "cpu": 2}}, {"requests": {"cpu": 0.5}}]),
                "nodeSelector": texts,
                "tolerations": st.just([{"operator": "Exists"}]),
                "affinity": st.just({"nodeAffinity": {}}),
                "podLabels": texts,
                "podAnnotations": texts,
                "extraEnv": env,
                "seccompProfile": st.just({"type": "Localhost", "localhostProfile": "a/b.json"}),
                "seLinuxOptions": st.just({"type": "spc_t"}),
                "appArmorProfile": st.just({"type": "RuntimeDefault"}),
            },
        ),
        "server": st.fixed_dictionaries({"enabled": st.booleans()}, optional={"podLabels": texts, "extraEnv": env}),
        "location": st.fixed_dictionaries(
            {"enabled": st.booleans()},
            optional={"name": word, "bucket": text, "prefix": text, "config": texts, "caCert": st.just("YQ==")},
        ),
        "credentials": st.fixed_dictionaries(
            {}, optional={"existingSecret": word, "secretContents": text, "key": word}
        ),
        "serviceAccounts": st.fixed_dictionaries({"agent": st.fixed_dictionaries({"annotations": texts})}),
        "monitoring": st.fixed_dictionaries(
            {
                "podMonitor": st.fixed_dictionaries({"enabled": st.booleans(), "labels": texts}),
                "rules": st.fixed_dictionaries({"enabled": st.booleans(), "staleHours": st.integers(1, 900)}),
                "dashboard": st.fixed_dictionaries({"enabled": st.booleans()}),
            }
        ),
    },
)


@given(values=SETTINGS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_chart_and_command_agree_on_any_settings(helm, values):
    assert rendered(helm, values) == keyed(objects(merged(values), namespace="apart"))


def test_definitions_are_the_same_too(helm):
    found = {key: one for key, one in rendered(helm, {}).items() if key[0] == "CustomResourceDefinition"}
    wanted = keyed(objects(merged(), namespace="apart"))
    assert found and found == {key: one for key, one in wanted.items() if key[0] == "CustomResourceDefinition"}


def test_kustomize_gives_what_the_command_gives(kubectl):
    found = keyed(yaml.safe_load_all(kubectl("kustomize", str(ROOT / "daemonset"))))
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
