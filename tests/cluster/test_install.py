"""The installation on a real API server: what the agent's account may do is exactly what is declared, and with that it does its work.

Accounts enter with tokens that the server issued for a pod on a node, as the kubelet has them; so RBAC and the admission policy see what they see in a cluster.
"""

import copy
import itertools
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from kubernetes import client
from kubernetes.client.exceptions import ApiException

from longshore.controllers.maintenance.ledger import Operation
from longshore.controllers.maintenance.settings import JobSettings
from longshore.controllers.maintenance.template import make_job
from longshore.install.access import AGENT_CLUSTER_RULES, AGENT_RULES, SERVER_RULES
from longshore.install.apply import resource_for
from longshore.install.release import objects
from longshore.install.values import merged
from tests.cluster.node_rig import AGENT, LEASES, Cluster, credentials_of, fill, location_of, tree, wait_for
from tests.support.components import ApiServer
from tests.support.pki import write_private

ROOT = Path(__file__).resolve().parents[2]
NODE = "node-1"
VELERO = ("velero.io", "v1")
MERGE = "application/merge-patch+json"


def longshore(api_server, *words, ok=True):
    """Run the command as an administrator does."""
    done = subprocess.run(
        [sys.executable, "-m", "longshore.cli.main", *words, "--kubeconfig", str(api_server.kubeconfig)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env={"PYTHONPATH": str(ROOT / "python"), "HOME": str(api_server.folder), "PATH": "/usr/bin:/bin"},
    )
    assert (done.returncode == 0) is ok, done.stderr
    return done.stdout + done.stderr


class Account:
    """A service account's way in: a token bound to a pod on a node, or bound to nothing."""

    def __init__(self, api_server, namespace, account, *, node=NODE):
        self.namespace = namespace
        with api_server.client() as admin:
            core = client.CoreV1Api(admin)
            request = {"spec": {"expirationSeconds": 3600}}
            if node is not None:
                spec = {"nodeName": node, "serviceAccountName": account, "containers": [{"name": "c", "image": "i"}]}
                pod = core.create_namespaced_pod(namespace, {"metadata": {"generateName": "agent-"}, "spec": spec})
                bound = {"apiVersion": "v1", "kind": "Pod", "name": pod.metadata.name, "uid": pod.metadata.uid}
                request["spec"]["boundObjectRef"] = bound
            token = core.create_namespaced_service_account_token(account, namespace, request).status.token
        config = json.loads(api_server.kubeconfig.read_text())
        config["users"][0]["user"] = {"token": token}
        self.kubeconfig = api_server.folder / f"{namespace}-{account}-{node}.kubeconfig"
        write_private(self.kubeconfig, json.dumps(config).encode())
        self._exit = api_server.client(self.kubeconfig)
        self.api = self._exit.__enter__()
        self.core = client.CoreV1Api(self.api)
        self.custom = client.CustomObjectsApi(self.api)
        self.coordination = client.CoordinationV1Api(self.api)

    def close(self):
        self._exit.__exit__(None, None, None)

    def patch(self, plural, name, body, **options):
        return self.custom.patch_namespaced_custom_object(
            *VELERO, self.namespace, plural, name, body, _content_type=MERGE, **options
        )


def refused(call):
    """Tell by whom a call is refused: `rbac`, `policy`, or `no` when it goes through."""
    try:
        call()
    except ApiException as err:
        if err.status != 403:
            raise
        said = json.loads(err.body)["message"]
        return "policy" if "ValidatingAdmissionPolicy" in said else "rbac"
    return "no"


@pytest.fixture
def installed(api_server, kubectl, namespace):
    longshore(api_server, "install", "-n", namespace)
    return namespace


@pytest.fixture
def accounts(api_server, installed):
    opened = []

    def enter(account="node-agent", *, node=NODE):
        opened.append(Account(api_server, installed, account, node=node))
        return opened[-1]

    yield enter
    for one in opened:
        one.close()


def pvb(node=NODE, **status):
    return {
        "apiVersion": "velero.io/v1",
        "kind": "PodVolumeBackup",
        "metadata": {"generateName": "b-"},
        "spec": {
            "node": node,
            "pod": {"kind": "Pod", "namespace": "default", "name": "p", "uid": ""},
            "volume": "data",
            "backupStorageLocation": "default",
            "repoIdentifier": "",
        },
        **({"status": status} if status else {}),
    }


def pvr(**status):
    made = pvb(**status)
    made["kind"] = "PodVolumeRestore"
    del made["spec"]["node"]
    made["spec"] |= {"snapshotID": "ls0-x", "sourceNamespace": "default"}
    return made


@pytest.fixture
def admin(api_client):
    return client.CustomObjectsApi(api_client)


def make(admin, namespace, body):
    plural = f"{body['kind'].lower()}s"
    made = admin.create_namespaced_custom_object(*VELERO, namespace, plural, body)
    return plural, made["metadata"]["name"]


@pytest.fixture
def policy(admin, installed, accounts):
    """Wait until the policy is in force: the server learns of it a moment after it is written."""
    agent = accounts()
    plural, name = make(admin, installed, pvb(node="elsewhere"))
    touch = {"metadata": {"annotations": {"x": "y"}}}

    def in_force():
        return refused(lambda: agent.patch(plural, name, touch, dry_run="All")) == "policy"

    wait_for(in_force, seconds=60, what="the policy is in force")
    return agent


def test_agent_writes_the_backups_of_its_node_alone(policy, admin, installed, accounts):
    agent = policy
    working = {"status": {"phase": "InProgress", "node": NODE}}
    plural, own = make(admin, installed, pvb())
    _, other = make(admin, installed, pvb(node="elsewhere"))
    assert refused(lambda: agent.patch(plural, own, working)) == "no"
    assert (
        refused(lambda: agent.patch(plural, own, {"metadata": {"annotations": {"longshore.io/instance": "i"}}})) == "no"
    )
    assert refused(lambda: agent.patch(plural, other, working)) == "policy"
    assert refused(lambda: agent.patch(plural, other, {"spec": {"node": NODE}})) == "policy"
    assert refused(lambda: agent.patch(plural, own, {"spec": {"volume": "another"}})) == "policy"
    assert refused(lambda: accounts(node="elsewhere").patch(plural, own, working)) == "policy"
    assert refused(lambda: accounts(node=None).patch(plural, own, working)) == "policy"
    assert admin.get_namespaced_custom_object(*VELERO, installed, plural, other).get("status") is None


def test_agent_claims_restores_for_its_node_and_keeps_to_them(policy, admin, installed, accounts):
    agent, other = policy, accounts(node="elsewhere")
    plural, name = make(admin, installed, pvr())
    claim = {"status": {"phase": "InProgress", "node": NODE}}
    assert refused(lambda: agent.patch(plural, name, {"status": {"phase": "InProgress"}})) == "policy"
    assert refused(lambda: agent.patch(plural, name, {"status": {"node": "elsewhere"}})) == "policy"
    assert refused(lambda: agent.patch(plural, name, {**claim, "spec": {"snapshotID": "ls0-y"}})) == "policy"
    assert refused(lambda: agent.patch(plural, name, {"metadata": {"finalizers": []}})) == "no"
    assert refused(lambda: agent.patch(plural, name, claim)) == "no"
    assert refused(lambda: agent.patch(plural, name, {"status": {"progress": {"bytesDone": 1}}})) == "no"
    assert refused(lambda: agent.patch(plural, name, {"status": {"node": None}})) == "policy"
    assert refused(lambda: other.patch(plural, name, {"status": {"phase": "Failed"}})) == "policy"
    assert refused(lambda: other.patch(plural, name, {"status": {"node": "elsewhere"}})) == "policy"
    assert refused(lambda: other.patch(plural, name, {"metadata": {"annotations": {"a": "b"}}})) == "policy"
    # An administrator, and so a Velero server, is not judged.
    admin.patch_namespaced_custom_object(*VELERO, installed, plural, name, {"status": {"phase": "Failed"}})


def test_claim_that_older_definitions_cut_down_to_its_annotation(policy, admin, installed, accounts):
    """Those of Velero before 1.17 drop the node from a restore's status: the annotation that the claim writes too is held against the node then."""
    agent, other = policy, accounts(node="elsewhere")
    plural, name = make(admin, installed, pvr())

    def patch(node, **status):
        return {"metadata": {"annotations": {"longshore.io/node": node}}, "status": status}

    assert refused(lambda: agent.patch(plural, name, patch("elsewhere", phase="InProgress"))) == "policy"
    assert refused(lambda: agent.patch(plural, name, patch("elsewhere"))) == "policy"
    assert refused(lambda: agent.patch(plural, name, patch(NODE, phase="InProgress"))) == "no"
    assert refused(lambda: agent.patch(plural, name, {"status": {"phase": "Completed"}})) == "no"
    assert refused(lambda: other.patch(plural, name, {"status": {"phase": "Failed"}})) == "policy"
    assert refused(lambda: other.patch(plural, name, patch("elsewhere", phase="Failed"))) == "policy"


def test_agent_makes_its_own_lease_and_one_secret(policy, installed):
    agent = policy

    def take(name):
        body = {"metadata": {"name": name}, "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15}}
        return agent.coordination.create_namespaced_lease(installed, body)

    def secret(name, *, annotations=None, **more):
        body = {"metadata": {"name": name, "annotations": annotations}, **more}
        return lambda: agent.core.create_namespaced_secret(installed, body)

    assert refused(lambda: take("longshore-node-agent-elsewhere")) == "policy"
    assert refused(lambda: take("longshore-server")) == "policy"
    assert refused(lambda: take(f"longshore-node-agent-{NODE}")) == "no"
    assert refused(secret("another")) == "policy"
    # Kubernetes would fill it with the server's token, and the agent may read Secrets.
    account = {"kubernetes.io/service-account.name": "longshore-server"}
    kind = "kubernetes.io/service-account-token"
    assert refused(secret("longshore-repo-credentials", type=kind, annotations=account)) == "policy"
    assert refused(secret("longshore-repo-credentials")) == "no"


def test_server_makes_jobs_of_its_own_deployment_alone(api_client, installed, accounts):
    server, batch = accounts("longshore-server"), client.BatchV1Api(api_client)
    deployment = client.AppsV1Api(api_client).read_namespaced_deployment("longshore-server", installed)
    obj = {"apiVersion": "velero.io/v1", "kind": "BackupRepository", "metadata": {"name": "r", "uid": "u"}}
    made = make_job(
        obj,
        operation=Operation.MAINTENANCE,
        number=1,
        deployment=api_client.sanitize_for_serialization(deployment),
        settings=JobSettings(),
        namespace=installed,
    )
    jobs = client.BatchV1Api(server.api)

    def create(change=lambda _pod: None):
        body = copy.deepcopy(made)
        change(body["spec"]["template"]["spec"])
        return lambda: jobs.create_namespaced_job(installed, body, dry_run="All")

    def container(**fields):
        return create(lambda pod: pod["containers"][0].update(fields))

    forged = create(lambda pod: pod.update(serviceAccountName="node-agent"))
    wait_for(lambda: refused(forged) == "policy", seconds=60, what="the policy is in force")
    assert refused(create()) == "no"
    host = {"name": "host", "hostPath": {"path": "/"}}
    beside = {"name": "beside", "image": "i", "args": ["repo", "maintain", "r"]}
    for wrong in (
        create(lambda pod: pod["volumes"].append(host)),
        create(lambda pod: pod.pop("volumes") and pod["containers"][0].pop("volumeMounts")),
        create(lambda pod: pod.update(hostPID=True)),
        create(lambda pod: pod.update(hostNetwork=True)),
        create(lambda pod: pod["securityContext"].update(runAsNonRoot=False, runAsUser=0)),
        create(lambda pod: pod["containers"].append(beside)),
        create(lambda pod: pod.update(initContainers=[beside])),
        container(image="another"),
        container(args=["node-agent", "server", "x"]),
        container(args=None),
        container(command=["/usr/bin/python3.11", "-c", "print()"]),
        container(lifecycle={"postStart": {"exec": {"command": ["x"]}}}),
        container(securityContext={"privileged": True}),
        container(securityContext=None),
    ):
        assert refused(wrong) == "policy"
    # Others are not judged.
    body = copy.deepcopy(made)
    body["spec"]["template"]["spec"]["volumes"].append(host)
    batch.create_namespaced_job(installed, body, dry_run="All")


@pytest.mark.parametrize(
    ("account", "cluster_rules", "rules"),
    [("node-agent", AGENT_CLUSTER_RULES, AGENT_RULES), ("longshore-server", [], SERVER_RULES)],
)
def test_accounts_may_do_what_is_declared_and_nothing_more(
    api_client, kubectl, installed, account, cluster_rules, rules
):
    """Ask the server for every verb on every kind that it has, in the account's namespace, in another one and outside."""
    verbs = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
    groups = {
        one.name: one.preferred_version.group_version for one in client.ApisApi(api_client).get_api_versions().groups
    }
    paths = {"": "/api/v1", **{group: f"/apis/{version}" for group, version in groups.items()}}
    kinds = {
        (group, one["name"])
        for group, path in paths.items()
        for one in json.loads(kubectl("get", "--raw", path))["resources"]
    }
    kinds |= {("", "users"), ("", "groups")}
    assert len(kinds) > 90

    def declared(rules):
        return {
            (group, kind, verb)
            for rule in rules
            for group, kind, verb in itertools.product(rule["apiGroups"], rule["resources"], rule["verbs"])
        }

    asked = list(
        itertools.product(sorted(kinds), (*verbs, "impersonate", "bind", "escalate"), (installed, "kube-system"))
    )
    allowed, lock = set(), threading.Lock()
    api = client.AuthorizationV1Api(api_client)

    def ask(part):
        for (group, kind), verb, namespace in part:
            resource, _, sub = kind.partition("/")
            attributes = {
                "group": group,
                "resource": resource,
                "subresource": sub,
                "verb": verb,
                "namespace": namespace,
            }
            spec = {
                "resourceAttributes": attributes,
                "user": f"system:serviceaccount:{installed}:{account}",
                "groups": ["system:serviceaccounts", f"system:serviceaccounts:{installed}"],
            }
            if api.create_subject_access_review({"spec": spec}).status.allowed:
                with lock:
                    allowed.add((namespace, group, kind, verb))

    threads = [threading.Thread(target=ask, args=(asked[number::4],)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    everywhere = {("kube-system", *one) for one in declared(cluster_rules)}
    assert allowed == everywhere | {(installed, *one) for one in declared(rules) | declared(cluster_rules)}


@pytest.fixture
def worked(api_server, installed, s3_server, bucket, tmp_path):
    made = Cluster(
        api_server,
        installed,
        tmp_path / "node",
        location=location_of(s3_server, bucket),
        credentials=credentials_of(s3_server),
    )
    yield made
    made.close()


def test_agent_does_its_work_with_these_rights(worked, policy):
    """Backup, key and repository made new, restore, and the lease given back at the end; nothing is refused on the way."""
    uid, path = worked.pod("db-0")
    fill(path, seed=3, megabytes=8, files=40)
    expected = tree(path)
    worked.backup("out", "db-0", uid)
    started = worked.agent(
        "-c",
        AGENT.replace("LEASE_TIMES", LEASES["short"]),
        policy.kubeconfig,
        worked.namespace,
        worked.pods_root,
        worked.cache,
    )
    status = worked.wait_phase("podvolumebackups", "out")
    assert status["phase"] == "Completed", (status, worked.logs())
    back, target = worked.pod("back-0", waits=True, user=os.geteuid())
    worked.restore("in", "back-0", back, status["snapshotID"])
    status = worked.wait_phase("podvolumerestores", "in")
    assert status["phase"] == "Completed", (status, worked.logs())
    assert tree(target) == expected
    # An object that ends without any work, and one of another agent's, are written too.
    worked.restore("foreign", "back-0", back, "0a1b2c3d")
    assert worked.wait_phase("podvolumerestores", "foreign")["node"] == NODE
    events = wait_for(
        lambda: [one for one in worked.core.list_namespaced_event(worked.namespace).items if one.reason == "Completed"],
        seconds=30,
        what="events are written",
    )
    assert {one.involved_object.name for one in events} >= {"out"}
    started.stop()
    said = worked.logs()
    assert "forbidden" not in said.lower() and "denied" not in said.lower(), said


def test_install_again_changes_nothing_and_an_update_takes_back_what_it_set(api_server, api_client, installed):
    apps = client.AppsV1Api(api_client)
    before = apps.read_namespaced_daemon_set("node-agent", installed)
    longshore(api_server, "install", "-n", installed)
    after = apps.read_namespaced_daemon_set("node-agent", installed)
    assert after.metadata.resource_version == before.metadata.resource_version
    # Somebody else's field stays, ours goes when it is no longer wanted.
    apps.patch_namespaced_daemon_set("node-agent", installed, {"metadata": {"annotations": {"other": "kept"}}})
    longshore(
        api_server, "install", "-n", installed, "--set", "agent.priorityClassName=high", "--set", "agent.restores=false"
    )
    changed = apps.read_namespaced_daemon_set("node-agent", installed)
    assert changed.spec.template.spec.priority_class_name == "high"
    assert "CHOWN" not in changed.spec.template.spec.containers[0].security_context.capabilities.add
    longshore(api_server, "install", "-n", installed, "--agent-only")
    changed = apps.read_namespaced_daemon_set("node-agent", installed)
    assert changed.spec.template.spec.priority_class_name is None
    assert changed.metadata.annotations["other"] == "kept"
    with pytest.raises(ApiException, match="404"):
        apps.read_namespaced_deployment("longshore-server", installed)


def test_server_accepts_everything_that_settings_can_make(api_server, namespace):
    said = longshore(
        api_server, "install", "-n", namespace, "--dry-run", "--set", "policy.enabled=false", "--bucket", "b",
        "--set", "agent.cacheHostPath=", "--set", "agent.appArmorProfile={type: RuntimeDefault}",
        "--set", "agent.seLinuxOptions={type: spc_t}", "--set", "agent.tolerations=[{operator: Exists}]",
        "--set", "imagePullSecrets=[{name: r}]", "--set", "agent.seccompProfile={type: Localhost, localhostProfile: a.json}",
        "--set", "agent.extraEnv=[{name: A, value: b}]", "--set", "serviceAccounts.agent.annotations={role: x}",
    )  # fmt: skip
    assert "applied: DaemonSet" in said
    assert "policy.enabled" not in said
    said = longshore(
        api_server, "install", "-n", namespace, "--dry-run", "--set", "monitoring.podMonitor.enabled=true", ok=False
    )
    assert "next: install the Prometheus operator first" in said


def test_uninstall_leaves_data_alone_and_nothing_behind(kubectl, namespace, s3_server):
    with ApiServer() as own, own.client() as api:
        longshore(own, "install", "--bucket", "b")
        custom, core = client.CustomObjectsApi(api), client.CoreV1Api(api)
        core.create_namespaced_secret("velero", {"metadata": {"name": "longshore-repo-credentials"}})
        body = pvb()
        body["metadata"]["finalizers"] = ["velero.io/pod-volume-finalizer"]
        make(custom, "velero", body)
        longshore(own, "uninstall")
        left = {
            (one["kind"], one["metadata"]["name"])
            for one in objects(
                merged({"namespace": {"create": True}, "location": {"enabled": True}}), namespace="velero"
            )
            if _there(own, one)
        }
        assert {kind for kind, _ in left} == {"Namespace", "CustomResourceDefinition", "BackupStorageLocation"}
        assert core.read_namespaced_secret("longshore-repo-credentials", "velero")
        assert longshore(own, "uninstall").count("removed:") == 0
        longshore(own, "uninstall", "--crds", "--yes")
        definitions = client.ApiextensionsV1Api(api)
        wait_for(
            lambda: not definitions.list_custom_resource_definition().items, seconds=60, what="definitions are gone"
        )
        assert core.read_namespaced_secret("longshore-repo-credentials", "velero")
        # And it can be had again.
        longshore(own, "install")


def _there(server, obj):
    metadata = obj["metadata"]
    root = "/apis/" if "/" in obj["apiVersion"] else "/api/"
    place = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    path = f"{root}{obj['apiVersion']}{place}/{resource_for(obj).plural}/{metadata['name']}"
    try:
        server.kubectl("get", "--raw", path)
    except AssertionError as err:
        if "NotFound" not in str(err):
            raise
        return False
    return True
