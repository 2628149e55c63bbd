"""What is installed: as it is written into daemonset/, as Velero looks for it, as the security team reads it."""

import io
import json
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from pydantic import BaseModel

from longshore.cli.main import main
from longshore.controllers.limits import Bounds, LimitsFolder
from longshore.controllers.ports import allowances
from longshore.errors import UsageError
from longshore.install import values
from longshore.install.access import AGENT_CLUSTER_RULES, AGENT_RULES, SERVER_RULES
from longshore.install.policy import PARTS as POLICY
from longshore.install.release import dump, objects
from longshore.install.values import VERSION, Values, merged, schema, values_yaml
from longshore.install.write import files, write
from longshore.logs import configure
from longshore.node_agent import lease_name

ROOT = Path(__file__).resolve().parents[3]


def made(*layers, namespace="velero"):
    return {(one["kind"], one["metadata"]["name"]): one for one in objects(merged(*layers), namespace=namespace)}


def test_tree_holds_what_the_source_makes():
    stale = [
        name
        for name, text in files().items()
        if not (ROOT / "daemonset" / name).is_file() or (ROOT / "daemonset" / name).read_text() != text
    ]
    assert not stale, f"run: make manifests (for {stale})"
    own = {
        path.relative_to(ROOT / "daemonset").as_posix()
        for room in ("chart", "base")
        for path in (ROOT / "daemonset" / room).rglob("*")
        if path.is_file()
    }
    assert own == {name for name in files() if "/" in name}


@pytest.mark.parametrize(
    ("settings", "held"),
    [
        ({}, Bounds()),
        ({"limitUpload": "20MiB"}, Bounds(upload=20 << 20)),
        (
            {"limitDownload": "999999999GiB", "limitRequests": 10000},
            Bounds(download=999_999_999 << 30, requests=10_000),
        ),
    ],
)
def test_agent_understands_the_limits_that_are_installed(settings, held, tmp_path):
    release = made({"agent": settings})
    for name, text in release["ConfigMap", "node-agent-limits"]["data"].items():
        (tmp_path / name).write_text(text)
    told = []
    nowhere = SimpleNamespace(set=lambda **bounds: told.append(bounds))
    log = io.StringIO()
    configure(level="warning", stream=log)
    assert LimitsFolder(nowhere, flags=Bounds(requests=1), folder=tmp_path).look() == held
    assert log.getvalue() == ""
    # Mounted, where the flag says, and not as one file, which the kubelet would never lay down anew.
    pod = release["DaemonSet", "node-agent"]["spec"]["template"]["spec"]
    (volume,) = [one["name"] for one in pod["volumes"] if one.get("configMap", {}).get("name") == "node-agent-limits"]
    (mount,) = [one for one in pod["containers"][0]["volumeMounts"] if one["name"] == volume]
    assert f"--limits-dir={mount['mountPath']}" in pod["containers"][0]["args"]
    assert mount["readOnly"] is True and "subPath" not in mount
    # Whoever deletes it lifts the limits; a pod that starts then must not wait for it.
    assert [one["configMap"]["optional"] for one in pod["volumes"] if one["name"] == volume] == [True]


def test_agent_reads_its_limits_without_a_right_for_config_maps():
    assert not [rule for rule in (*AGENT_RULES, *AGENT_CLUSTER_RULES) if "configmaps" in rule["resources"]]


def test_what_is_no_longer_made_goes(tmp_path):
    (tmp_path / "chart/templates").mkdir(parents=True)
    (tmp_path / "chart/templates/old.yaml").touch()
    (tmp_path / "crds").mkdir()
    (tmp_path / "crds/kept.yaml").touch()
    write(tmp_path)
    assert not (tmp_path / "chart/templates/old.yaml").exists()
    assert (tmp_path / "crds/kept.yaml").exists()


def test_version_is_the_packages():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION


def test_names_are_those_that_velero_looks_for():
    agent = made()["DaemonSet", "node-agent"]
    pod = agent["spec"]["template"]
    assert pod["metadata"]["labels"]["name"] == pod["metadata"]["labels"]["role"] == "node-agent"
    container = pod["spec"]["containers"][0]
    assert container["command"] == ["/velero"] and container["args"][:2] == ["node-agent", "server"]
    assert {one["name"] for one in container["env"]} >= {"NODE_NAME", "VELERO_NAMESPACE", "VELERO_SCRATCH_DIR"}
    assert {one["name"]: one.get("hostPath", {}).get("path") for one in pod["spec"]["volumes"]}[
        "host-pods"
    ] == "/var/lib/kubelet/pods"


@pytest.mark.parametrize("restores", [True, False])
def test_agent_has_no_right_too_many(restores):
    pod = made({"agent": {"restores": restores}})["DaemonSet", "node-agent"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    context = container["securityContext"]
    assert context["capabilities"]["drop"] == ["ALL"]
    writing = {"CHOWN", "DAC_OVERRIDE", "FSETID"} if restores else set()
    assert set(context["capabilities"]["add"]) == {"DAC_READ_SEARCH", "FOWNER"} | writing
    assert context["allowPrivilegeEscalation"] is context["privileged"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["resources"]["limits"] == {"memory": "512Mi"}
    mounts = {one["name"]: one for one in container["volumeMounts"]}
    assert mounts["host-pods"]["readOnly"] is not restores
    assert ("--backup-only" in pod["containers"][0]["args"]) is not restores
    assert mounts["host-pods"]["mountPropagation"] == "HostToContainer"
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    folders = {one["name"]: one["hostPath"]["path"] for one in pod["volumes"] if "hostPath" in one}
    assert folders == {"host-pods": "/var/lib/kubelet/pods", "scratch": "/var/lib/longshore/velero"}


@pytest.mark.parametrize("restores", [True, False])
@pytest.mark.parametrize(
    ("settings", "volume"),
    [
        ({}, {"hostPath": {"path": "/var/lib/longshore/apart", "type": "DirectoryOrCreate"}}),
        ({"cacheHostPath": "/c"}, {"hostPath": {"path": "/c/apart", "type": "DirectoryOrCreate"}}),
        ({"cacheHostPath": "", "cacheSizeLimit": "7Gi"}, {"emptyDir": {"sizeLimit": "7Gi"}}),
    ],
)
def test_cache_is_of_the_node_and_of_one_installation_and_can_be_written(settings, volume, restores):
    found = made({"agent": {**settings, "restores": restores}}, namespace="apart")["DaemonSet", "node-agent"]
    pod = found["spec"]["template"]["spec"]
    assert [one for one in pod["volumes"] if one["name"] == "scratch"] == [{"name": "scratch", **volume}]
    (container,) = pod["containers"]
    (mount,) = [one for one in container["volumeMounts"] if one["name"] == "scratch"]
    # Everything else of the root file system is read-only, and what cannot be written below the pods' folder does not reach here.
    assert mount == {"name": "scratch", "mountPath": "/scratch"}
    env = {one["name"]: one.get("value") for one in container["env"]}
    assert env["LONGSHORE_CACHE_DIR"] == "/scratch/longshore" and env["LONGSHORE_CACHE_LIMIT"] == "5GiB"


@pytest.mark.parametrize(
    ("allow", "more"),
    [
        ("", set()),
        ("setuid", set()),
        ("devices", {"MKNOD"}),
        ("capabilities", {"SETFCAP"}),
        ("setuid,devices,capabilities", {"MKNOD", "SETFCAP"}),
    ],
)
def test_what_restores_may_bring_back_the_kernel_lets_them(allow, more):
    def container(**agent):
        return made({"agent": agent})["DaemonSet", "node-agent"]["spec"]["template"]["spec"]["containers"][0]

    def added(found):
        return set(found["securityContext"]["capabilities"]["add"])

    found = container(restoreAllow=allow)
    assert added(found) - added(container()) == more
    given = [one.partition("=")[2] for one in found["args"] if one.startswith("--restore-allow")]
    assert given == ([allow] if allow else [])
    assert all(allowances(one, field="f") for one in given)
    assert not added(container(restoreAllow=allow, restores=False)) & {"MKNOD", "SETFCAP"}


def test_server_is_nobody():
    pod = made()["Deployment", "longshore-server"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not [one for one in pod["volumes"] if "hostPath" in one]


def test_two_installations_share_nothing_but_definitions():
    both = [
        {
            (one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"])
            for one in objects(merged({"namespace": {"create": True}}), namespace=name)
        }
        for name in ("velero", "other")
    ]
    assert {kind for kind, _, _ in both[0] & both[1]} == {"CustomResourceDefinition"}
    # Of what they have on a node, only the pods' folder is for both.
    folders = [
        {one["hostPath"]["path"] for one in pod["volumes"] if "hostPath" in one}
        for name in ("velero", "other")
        for pod in [made(namespace=name)["DaemonSet", "node-agent"]["spec"]["template"]["spec"]]
    ]
    assert folders[0] & folders[1] == {"/var/lib/kubelet/pods"}


def test_policy_speaks_of_the_lease_that_the_agent_takes():
    text = json.dumps(POLICY[0].objects[0][1], default=str)
    prefix = lease_name("")
    assert f"'{prefix}' + variables.node" in text
    longest = "n" * (253 - len(prefix))
    assert lease_name(longest) == prefix + longest
    assert lease_name(longest + "n") != prefix + longest + "n"
    assert f"size(variables.node) > {len(longest)} ?" in text


def test_every_setting_is_explained():
    def walk(node, where=""):
        for name, one in node.get("properties", {}).items():
            told = one.get("description") or schema()["$defs"][one["$ref"].rpartition("/")[2]]["description"]
            assert told, where + name

    walk(schema())
    for name, one in schema()["$defs"].items():
        # The others are Kubernetes' own shapes, which its reference explains.
        if issubclass(getattr(values, name, dict), BaseModel):
            walk(one, f"{name}.")
    assert yaml.safe_load(values_yaml()) == Values().tree()


@pytest.mark.parametrize(
    "layer",
    [
        {"agent": {"concurency": 3}},
        {"agent": {"concurrency": 0}},
        {"agent": {"concurrency": "3"}},
        {"image": {"digest": "sha256:12"}},
        {"location": {"provider": "ftp"}},
        {"agent": {"kubeletRootDir": "relative"}},
    ],
)
def test_wrong_setting_is_named(layer):
    with pytest.raises(UsageError, match=rf"setting={'.'.join((next(iter(layer)), *next(iter(layer.values()))))}"):
        merged(layer)


@pytest.mark.parametrize("given", [1, "25%"])
def test_nodes_in_an_update_are_a_number_or_a_share(given):
    # Kubernetes takes `1` for a number and "1" for nothing.
    agent = made({"agent": {"maxUnavailable": given}})["DaemonSet", "node-agent"]
    assert agent["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"] == given
    with pytest.raises(UsageError):
        merged({"agent": {"maxUnavailable": str(given).rstrip("%")}})


def test_command_shows_the_objects(capsys, tmp_path):
    secret = tmp_path / "credentials"
    secret.write_text("[default]\naws_access_key_id = a\n")
    words = ["--bucket", "b", "--backup-location-config", "region=r,s3Url=http://x:1", "--secret-file", str(secret)]
    words += [
        "--image",
        "registry:5000/longshore",
        "--set",
        "agent.concurrency=4",
        "--set",
        "agent.nodeSelector.disk=ssd",
        "-n",
        "apart",
    ]
    assert main(["install", "--dry-run", "-o", "yaml", *words]) == 0
    shown = list(yaml.safe_load_all(capsys.readouterr().out))
    settings = {
        "namespace": {"create": True},
        "image": {"repository": "registry:5000/longshore"},
        "agent": {"concurrency": 4, "nodeSelector": {"disk": "ssd"}},
        "location": {"enabled": True, "bucket": "b", "config": {"region": "r", "s3Url": "http://x:1"}},
        "credentials": {"secretContents": secret.read_text()},
    }
    assert shown == objects(merged(settings), namespace="apart")
    assert all(one["metadata"].get("namespace", "apart") == "apart" for one in shown)
    assert main(["install", "--dry-run", "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["items"] == objects(
        merged({"namespace": {"create": True}}), namespace="velero"
    )


def test_command_refuses_what_it_cannot_mean(capsys):
    assert main(["install", "-o", "yaml"]) == 2
    assert main(["install", "--dry-run", "-o", "yaml", "--set", "agent.x"]) == 2
    assert main(["install", "--dry-run", "-o", "yaml", "--set", "agent.x=1"]) == 2
    assert "setting=agent.x" in capsys.readouterr().err


def test_dump_survives_reading():
    text = {"a": "x: {{ y }}\n  z\n", "b": "trailing \nblank", "c": "on", "d": ["1", 1]}
    assert list(yaml.safe_load_all(dump([text, text]))) == [text, text]


@pytest.mark.parametrize("rules", [AGENT_CLUSTER_RULES, AGENT_RULES, SERVER_RULES])
def test_every_right_is_explained(rules):
    page = (ROOT / "docs/guide/permissions.md").read_text()
    for rule in rules:
        group = rule["apiGroups"][0]
        kinds = ", ".join(f"{kind}.{group}" if group else kind for kind in rule["resources"])
        assert f"| {', '.join(rule['verbs'])} | {kinds} | " in page
    rows = [line for line in page.splitlines() if line.startswith(("| get", "| create", "| list"))]
    assert len(rows) == len(AGENT_CLUSTER_RULES) + len(AGENT_RULES) + len(SERVER_RULES)
