"""The guides for clusters, followed step by step: every command as it is written, against a real API server and a real S3 server, by the real kubectl,
helm and velero.

Where a kubelet and controllers would act, `stand_in` does: it runs what a guide's pods say, our agents and servers among it, as processes of this machine.
Does not know what a command should do beyond what its page says: other tests of this folder do.
"""

import base64
import json
import os
import re
import stat
import sys
from pathlib import Path

import pytest
from kubernetes import client

from tests.cluster.conftest import require
from tests.support import velero_asks
from tests.support.components import ApiServer, require_tool
from tests.support.guide import ROOT, Shell, Walk, in_sentences, wait_until
from tests.support.guide_coverage import NOT_RUN_IN_SENTENCES, WAYS
from tests.support.processes import ChildProcess, ReservedPort

# Twenty and more commands one after the other, each with a process of its own.
pytestmark = pytest.mark.timeout(600)
LONGSHORE = Path(sys.executable).with_name("longshore")


class Site:
    """A cluster with one node, and the reader before it."""

    def __init__(self, server, folder, clone):
        self.server, self.folder = server, folder
        self.api = server.client()
        self.node = ChildProcess(
            "stand-in",
            [sys.executable, "-m", "tests.cluster.stand_in", server.kubeconfig, folder, LONGSHORE],
            log_path=folder / "stand-in.log",
            env={"PYTHONPATH": f"{ROOT}:{ROOT / 'python'}"},
        )
        programs = {name: [require_tool(name)] for name in ("kubectl", "helm", "velero")}
        self.shell = Shell(
            clone,
            home=folder / "home",
            programs={"longshore": [LONGSHORE], **programs},
            env={"KUBECONFIG": str(server.kubeconfig), "AWS_EC2_METADATA_DISABLED": "true"},
        )

    @property
    def pods_root(self):
        return self.folder / "pods"

    def get(self, *words):
        return json.loads(self.server.kubectl("get", *words, "-o", "json"))

    def close(self):
        self.api.close()
        self.shell.close()
        self.node.stop(grace_seconds=30)

    def logs(self):
        return "".join(
            f"\n=== {one.name}\n{one.read_text(errors='replace')[-4000:]}"
            for one in [self.folder / "stand-in.log", *sorted(self.folder.glob("logs/*.log"))]
        )


@pytest.fixture
def clone(tmp_path):
    """The reader's clone, in which files may be written."""
    made = tmp_path / "clone"
    made.mkdir()
    for name in ("daemonset", "python", "docs"):
        (made / name).symlink_to(ROOT / name)
    return made


@pytest.fixture
def new_site(tmp_path, clone):
    """Bring up a cluster."""
    require(lambda: [require_tool(name) for name in ("kube-apiserver", "etcd", "kubectl", "helm", "velero")])
    sites, servers = [], []

    def bring_up():
        server = ApiServer()
        servers.append(server)
        require(server.start)
        folder = tmp_path / f"cluster-{len(servers)}"
        folder.mkdir()
        sites.append(Site(server, folder, clone))
        return sites[-1]

    try:
        yield bring_up
    finally:
        for one in sites:
            print(one.logs())
            one.close()
        for one in servers:
            one.stop()


@pytest.fixture
def choices(s3_server, bucket):
    """What a reader fills in, wherever it stands."""
    return {
        "BUCKET=backups": f"BUCKET={bucket}",
        "AWS_REGION=eu-central-1": f"AWS_REGION={s3_server.region}",
        "https://s3.example.com": s3_server.endpoint_url,
        "your-access-key": s3_server.access_key,
        "your-secret-key": s3_server.secret_key,
    }


@pytest.fixture
def ports():
    """Two of this machine, in the place of those that a node has free."""
    held = [ReservedPort(), ReservedPort()]
    yield {f":{shown} &": f":{one.number} &" for shown, one in zip((8084, 8085), held, strict=True)}
    for one in held:
        one.close()


def follow(name, site, headings=(), **more):
    way = WAYS[name]
    return Walk(
        way.page,
        site.shell,
        headings=headings or way.headings,
        languages=way.languages,
        left_out={**way.left_out, **more.pop("skip", {})},
        **more,
    )


def began(site):
    """Tell what the guide's pod wrote down."""
    (found,) = site.pods_root.glob("*/volumes/kubernetes.io~empty-dir/data/began")
    return found.read_text()


def node_paths(site):
    return {"/var/lib/kubelet/pods": str(site.pods_root), "/var/cache/longshore": str(site.folder / "cache")}


UNSAFE = {"longshore status": (3, "it ends with 3 when something is not")}
SNAPSHOT = "ls0-0123456789abcdef0123456789abcdef"


def test_cluster(new_site, choices, ports):
    """Without Velero: to the backup and back, and in a second cluster from what the bucket and the recovery key hold."""
    first = new_site()
    fill = {**choices, **ports, **node_paths(first), SNAPSHOT: ""}
    walk = follow("cluster", first, fill=fill, exits=UNSAFE)
    walk.go("SNAPSHOT=$(kubectl -n velero get pvb…")
    before = began(first)
    walk.go("longshore repo key import…")
    assert began(first) == before
    follow("maintenance", first).finish()
    walk.fill[SNAPSHOT] = first.get("pvb", "database-1", "-n", "velero")["status"]["snapshotID"]
    first.close()

    second = new_site()
    fill |= node_paths(second)

    def again(*headings, skip=()):
        follow("cluster", second, headings, fill=fill, skip=dict.fromkeys(skip)).go()

    again("In a cluster", "1. Custom resources and namespace", "3. Where backups go")
    walk.shell = second.shell
    walk.go("export AWS_ENDPOINT_URL=$S3_URL")
    again("4. Server and agents")
    walk.finish()
    listed = walk.ran[next(name for name in walk.ran if name.startswith("longshore volume list"))]
    assert walk.fill[SNAPSHOT] in listed.out
    again("6. Restore it", skip=["SNAPSHOT=$(kubectl -n velero get pvb database-1 -o jsonpath='{.status.snapshotID}')"])
    assert began(second) == before


GUIDES = sorted(str(one.relative_to(ROOT)) for one in (ROOT / "docs/guide").glob("*.md"))
IMAGES = [f"registry.example.com/longshore:0.1.{number}" for number in (0, 1)]
HELM_REMOVES = "helm -n velero uninstall longshore"
WITH_DEFINITIONS = "longshore uninstall --crds --yes"


def agent_image(site):
    found = site.get("daemonset", "node-agent", "-n", "velero")
    return found["spec"]["template"]["spec"]["containers"][0]["image"]


def stays(site):
    """What is left of an installation; nothing of it hangs in deletion."""
    found = []

    def settled():
        kinds = site.server.kubectl("api-resources", "--verbs=list,delete", "-o", "name").split()
        try:
            found[:] = site.get(",".join(kinds), "--all-namespaces", "--ignore-not-found")["items"]
        except AssertionError as err:
            # A definition went between the two questions.
            if "doesn't have a resource type" not in str(err) and "could not find the requested" not in str(err):
                raise
            return False
        return not any(one["metadata"].get("deletionTimestamp") for one in found)

    wait_until(settled, what="nothing stays Terminating")
    ours = [one for one in found if one["metadata"].get("labels", {}).get("app.kubernetes.io/part-of") == "longshore"]
    return {one["kind"] for one in ours}


def gone(site):
    """The stand-in's part: pods whose owner went are gone, too."""
    wait_until(lambda: not site.get("pods", "-n", "velero")["items"], what="the agent's and server's pods are gone")


def back_up_and_restore(site):
    """What install.md sends its reader to."""
    # What that shows is of agents that are no pods.
    follow("cluster", site, ["5. Back a volume up"], skip={"longshore status": ""}).go()
    before = began(site)
    follow("cluster", site, ["6. Restore it"]).go()
    assert began(site) == before


def test_install(new_site, choices):
    """By the command: install, back up, restore, update, remove."""
    site = new_site()
    caches = site.folder / "host/var/lib/longshore"
    walk = follow(
        "install",
        site,
        fill={**choices, "/var/lib/longshore": str(caches)},
        skip={HELM_REMOVES: "", WITH_DEFINITIONS: ""},
    )
    walk.go("longshore status")
    assert agent_image(site) == IMAGES[0]
    back_up_and_restore(site)
    sentences = {one for page in GUIDES for one in in_sentences(page, "kubectl")}
    assert sentences > NOT_RUN_IN_SENTENCES.keys()
    for one in sorted(sentences - NOT_RUN_IN_SENTENCES.keys()):
        said = site.shell.run(one)
        assert said.code == 0 and "No resources found" not in said.err, (one, str(said))
    # One of them starts the agents anew.
    again = site.shell.run("kubectl -n velero rollout status daemonset/node-agent --timeout=2m")
    assert again.code == 0, again
    walk.go("longshore repo key export…")
    assert agent_image(site) == IMAGES[1]
    walk.go("rm -rf /var/lib/longshore")
    gone(site)
    assert stays(site) == {"CustomResourceDefinition", "Namespace", "BackupStorageLocation", "Secret"}
    # What the page says of the nodes: a cache that only its owner can enter, until it is taken away.
    cache = caches / "velero" / "longshore"
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700 and any(cache.iterdir())
    assert "left on each node: the agent's cache, /var/lib/longshore/velero" in walk.ran["longshore uninstall"].err
    walk.finish()
    assert not caches.exists()
    for one in ("podvolumebackups", "podvolumerestores"):
        assert site.get(one, "-n", "velero")["items"]
    assert site.shell.run(WITH_DEFINITIONS).code == 0
    assert stays(site) == {"Namespace", "Secret"}


def test_install_by_helm(new_site, choices):
    """The same by the chart, to its own removal."""
    site = new_site()
    follow("install", site, ["Before"], fill=choices).finish()
    node = {"longshore uninstall": "", WITH_DEFINITIONS: "", "rm -rf /var/lib/longshore": ""}
    walk = follow("install by Helm", site, skip=node)
    walk.go("export IMAGE=registry.example.com/longshore:0.1.1 (2)")
    assert agent_image(site) == IMAGES[0]
    notes = walk.ran["helm install longshore daemonset/chart --namespace velero \\"].out.partition("NOTES:")[2]
    told = re.findall(r"^  (\S.*)$", notes, re.MULTILINE)
    assert len(told) > 4
    for one in told:
        done = site.shell.run(one)
        assert done.code == 0, (one, str(done))
    follow("install", site, ["First backup, and back"], skip={"longshore status": ""}).finish()
    back_up_and_restore(site)
    walk.go("longshore repo key export…")
    assert agent_image(site) == IMAGES[1]
    location = site.get("backupstoragelocation", "default", "-n", "velero")
    assert location["status"]["phase"] == "Available"
    walk.finish()
    gone(site)
    assert stays(site) == {"CustomResourceDefinition", "BackupStorageLocation"}


def told_next(site, words, *, namespace):
    """Run Helm as a reader does, and then each command that its notes name, as it is written; gives what they came to."""
    done = site.shell.run(f"helm {words} --namespace {namespace}")
    assert done.code == 0, done
    notes = done.out.partition("NOTES:\n")[2]
    named = [line.strip() for line in notes.splitlines() if line.startswith("  ")]
    return {line: site.shell.run(line) for line in named}


def test_what_helm_says_next_can_be_done(new_site, choices):
    """Each command of the chart's notes, after an installation without anything, and after an upgrade that gives it a location."""
    site = new_site()
    follow("install", site, ["Before"], fill=choices).finish()
    site.shell.run(
        'CHART=$PWD/daemonset/chart; mkdir reader; cp credentials reader; ln -s "$CHART/crds" reader/crds; cd reader'
    )
    image = '--set image.repository="${IMAGE%:*}",image.tag="${IMAGE##*:}"'
    ran = told_next(site, f'install rel "$CHART" --create-namespace {image}', namespace="apart")
    ends = {line: done.code for line, done in ran.items()}
    # No backup has a place to go yet: whatever else is well, not all is safe.
    assert ends.pop("longshore status -n apart") == 3
    assert len(ends) == 4 and set(ends.values()) == {0}, ran
    labels = site.get("namespace", "apart")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"
    key = (site.folder.parent / "clone" / "reader" / "recovery.key").read_bytes()
    held = site.get("secret", "longshore-recovery", "-n", "apart")["data"]
    assert re.fullmatch(rb"longshore-key-1:[0-9a-f]{64}\n", key)
    assert {name: base64.b64decode(value) for name, value in held.items()} == {"recovery-key": key}

    secret = "kubectl -n apart create secret generic cloud-credentials --from-file=cloud=credentials"
    assert site.shell.run(secret).code == 0
    location = (
        '--set location.enabled=true,location.bucket="$BUCKET",credentials.existingSecret=cloud-credentials --set-string '
        'location.config.region="$AWS_REGION",location.config.s3Url="$S3_URL",location.config.s3ForcePathStyle=true'
    )
    ran = told_next(site, f'upgrade rel "$CHART" --reset-then-reuse-values {location}', namespace="apart")
    status = ran.pop("longshore status -n apart")
    assert {line: done.code for line, done in ran.items()} == dict.fromkeys(ran, 0), ran
    assert len(ran) == 4 and any(line.endswith("-f crds/") for line in ran)
    assert "BackupStorageLocation default" in status.out
    # An upgrade must not talk anybody into another key.
    assert (site.folder.parent / "clone" / "reader" / "recovery.key").read_bytes() == key


def test_install_by_kustomize(new_site, choices):
    """The same objects, with the reader's image in them; the command takes them away."""
    site = new_site()
    follow("install", site, ["Before"], fill=choices).finish()
    follow("install by kustomize", site).finish()
    assert agent_image(site) == IMAGES[0]
    assert site.shell.run("longshore uninstall").code == 0
    gone(site)
    assert stays(site) == {"CustomResourceDefinition", "Namespace"}


def test_seccomp_profile(new_site, choices, tmp_path):
    """permissions.md, after an installation."""
    site = new_site()
    follow("install", site, ["Before", "The command"], fill=choices).finish()
    kubelet = tmp_path / "kubelet"
    walk = follow("seccomp profile", site, fill={"/var/lib/kubelet": str(kubelet)})
    walk.finish()
    pod = site.get("daemonset", "node-agent", "-n", "velero")["spec"]["template"]["spec"]
    profile = pod["securityContext"]["seccompProfile"]
    assert (kubelet / "seccomp" / profile["localhostProfile"]).is_file() and profile["type"] == "Localhost"
    assert site.get("backupstoragelocation", "default", "-n", "velero")


def test_velero(new_site, choices, s3_server, bucket, clone):
    """On what the real Velero lays down; its server's part is played, for no image of it runs here."""
    site = new_site()
    (clone / "mine").write_text(
        f"[default]\naws_access_key_id={s3_server.access_key}\naws_secret_access_key={s3_server.secret_key}\n"
    )
    config = f"region={s3_server.region},s3Url={s3_server.endpoint_url},s3ForcePathStyle=true"
    made = site.shell.run(
        "velero install --provider aws --plugins velero/velero-plugin-for-aws:v1.13.0 --use-node-agent --use-volume-snapshots=false"
        f" --bucket {bucket} --secret-file mine --backup-location-config {config}"
    )
    assert made.code == 0, made
    site.shell.run("export NODE_NAME=node-1")
    pod = follow("cluster", site, ["5. Back a volume up"])
    pod.go("POD=$(kubectl…")

    def waiting():
        again = follow("cluster", site, ["6. Restore it"], skip={pod_snapshot: ""})
        again.go("POD=$(kubectl -n shop get pod database-0 -o jsonpath='{.metadata.uid}') (2)")

    pod_snapshot = "SNAPSHOT=$(kubectl -n velero get pvb database-1 -o jsonpath='{.status.snapshotID}')"
    restoring = "SNAPSHOT=$(kubectl -n velero get podvolumebackup nightly-7zq4x -o jsonpath='{.status.snapshotID}')"
    walk = follow("velero", site, before={restoring: waiting})
    walk.go("velero restore create --from-backup nightly")
    before = began(site)
    assert agent_image(site) == IMAGES[0]
    walk.go("kubectl -n velero rollout undo daemonset node-agent")
    wait_until(
        lambda: site.get("pod", "database-0", "-n", "shop")["status"]["phase"] == "Running", what="the pod goes on"
    )
    assert began(site) == before
    walk.finish()
    assert agent_image(site).startswith("velero/velero:")


def claimed(site):
    """A pod with a bound claim, and two backups of it as Velero writes them."""
    core = client.CoreV1Api(site.api)
    size = {"storage": "1Gi"}
    core.create_namespace({"metadata": {"name": "shop"}})
    of = {"accessModes": ["ReadWriteOnce"], "storageClassName": "manual"}
    here = {"matchExpressions": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}]}
    local = {"local": {"path": "/mnt/pv-1"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [here]}}}
    core.create_persistent_volume({"metadata": {"name": "pv-1"}, "spec": {**of, "capacity": size, **local}})
    claim = core.create_namespaced_persistent_volume_claim(
        "shop", {"metadata": {"name": "data"}, "spec": {**of, "volumeName": "pv-1", "resources": {"requests": size}}}
    )
    core.patch_namespaced_persistent_volume_claim_status("data", "shop", {"status": {"phase": "Bound"}})
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    pod = core.create_namespaced_pod(
        "shop",
        {"metadata": {"name": "db"}, "spec": {"containers": [{"name": "db", "image": "db"}], "volumes": [volume]}},
    )
    uid = pod.metadata.uid
    path = site.pods_root / uid / "volumes/kubernetes.io~local-volume/pv-1"
    wait_until(path.is_dir, what="the volume is laid out")
    for number in (1, 2):
        (path / f"file-{number}").write_bytes(os.urandom(100_000))
        body = velero_asks.backup(
            f"database-{number}", {"namespace": "shop", "name": "db", "uid": uid}, volume="data", node="node-1"
        )
        body["metadata"]["labels"]["velero.io/pvc-uid"] = claim.metadata.uid
        site.server.kubectl("-n", "velero", "create", "-f", "-", stdin=json.dumps(body))
        done = ("wait", f"pvb/database-{number}", "--for=jsonpath={.status.phase}=Completed", "--timeout=50s")
        site.server.kubectl("-n", "velero", *done)


def test_cluster_in_readme(new_site, choices):
    """The installation and the backups that the first page shows."""
    site = new_site()
    follow("install", site, ["Before"], fill=choices).finish()

    def running():
        pods = site.get("pods", "-n", "velero")["items"]
        return len(pods) == 2 and all(one.get("status", {}).get("phase") == "Running" for one in pods)

    def found():
        # The server makes the repository's object when it sees the first backup, and opens it.
        repositories = site.get("backuprepositories", "-n", "velero")["items"]
        return [one.get("status", {}).get("phase") for one in repositories] == ["Ready"]

    walk = follow(
        "cluster in README",
        site,
        before={
            "kubectl -n velero get pods": lambda: wait_until(running, what="agent and server run"),
            "kubectl -n velero get pvb": lambda: claimed(site),
            "longshore status": lambda: wait_until(found, what="the repository is Ready"),
        },
        exits={"longshore status": (3, "`longshore status` ends with 3 while something is not safe")},
    )
    walk.finish()
