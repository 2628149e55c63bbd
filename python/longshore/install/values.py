"""The settings of an installation: names, defaults, what they mean, what they may be. values.yaml, values.schema.json and the page of docs come from here.

A setting is there because a cluster was met or is described that needs it. Docstrings below fields are what values.yaml and the schema say.

It does not know the objects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from longshore.errors import UsageError
from longshore.install.shapes import (
    OPTIONAL_NAME,
    Annotations,
    AppArmor,
    Capabilities,
    Environment,
    Labels,
    Name,
    PullSecrets,
    Resources,
    SeLinux,
    Tolerations,
    host_path,
    without,
)
from longshore.install.together import PREFIX, conflict

__all__ = ["VERSION", "Values", "merged", "schema", "values_yaml"]

VERSION: Final = "0.1.0"
"""Of the chart and of the image that it names; a test holds it equal to the package's."""

_OURS: Final = ("app.kubernetes.io/name", "app.kubernetes.io/component")
_ALLOWED: Final = "(setuid|devices|capabilities)"
_RATE: Final = r"^([1-9][0-9]{0,8}(KiB|MiB|GiB))?$"
_CONTAINER: Final = "kubectl.kubernetes.io/default-container"
Tree = dict[str, Any]
Texts = dict[str, str]
_MonitoringLabels = Annotated[Labels, without(*_OURS, "app.kubernetes.io/part-of")]
LogLevel = Literal["debug", "info", "warning", "error"]


class _Settings(BaseModel):
    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_alias=True,
        validate_by_name=True,
        use_attribute_docstrings=True,
    )


class Image(_Settings):
    """The image of server and agent."""

    repository: str = Field("longshore", pattern=r"^[A-Za-z0-9\[]([A-Za-z0-9._:/\[\]-]*[A-Za-z0-9])?$")
    """Registry and name."""
    tag: str = Field(VERSION, pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")
    """Its tag."""
    digest: str = Field("", pattern=r"^(sha256:[0-9a-f]{64})?$")
    """Goes before the tag: `sha256:` and 64 hexadecimal digits."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When a node fetches it."""


class Seccomp(_Settings):
    """A pod's seccomp profile."""

    type: Literal["RuntimeDefault", "Unconfined", "Localhost"] = "RuntimeDefault"
    """RuntimeDefault, or Localhost for a profile of your own on every node."""
    localhost_profile: str = Field("", pattern=r"^([!-,0-~\-][!-.0-~]*(/[!-,0-~\-][!-.0-~]*)*)?$")
    """With Localhost: its file, below the kubelet's seccomp folder."""


class Agent(_Settings):
    """The node agent: DaemonSet node-agent."""

    restores: bool = True
    """false: an agent that only backs up. It loses the rights to write: the pods folder is mounted read-only, three capabilities go, and by Landlock the
    agent gives up writing to what is mounted below it."""
    restore_allow: str = Field("", pattern=rf"^({_ALLOWED}(,{_ALLOWED})*)?$")
    """What restores bring back though it lends rights: some of setuid,devices,capabilities. devices gives the agent MKNOD, capabilities gives it SETFCAP;
    without them an annotation longshore.io/restore-allow on an object brings back neither."""
    extra_capabilities: Capabilities = []
    """More Linux capabilities, for volumes that need them."""
    kubelet_root_dir: Annotated[str, host_path(optional=False)] = "/var/lib/kubelet"
    """The kubelet's folder on the nodes; some distributions have another."""
    concurrency: int = Field(2, ge=1, le=256)
    """Volumes that one node works on at once."""
    buffer_memory: str = Field("256MiB", pattern=r"^[1-9][0-9]{0,8}(KiB|MiB|GiB)$")
    """For the buffers of all jobs of a node together. The process needs 128 MiB beside them: with less of
    resources.limits.memory left to it, it is refused."""
    limit_upload: str = Field("", pattern=_RATE)
    """Bytes a second that all jobs of a node together send to stores, as 20MiB; empty for no limit. This and the next two stand in ConfigMap
    node-agent-limits: a change holds for running jobs within about a minute and a half, and restarts no pod."""
    limit_download: str = Field("", pattern=_RATE)
    """Bytes a second that they fetch, as 50MiB; empty for no limit."""
    limit_requests: int = Field(0, ge=0, le=10_000)
    """Requests to stores that they have under way at once; 0 for no limit."""
    nice: int = Field(10, ge=0, le=19)
    """Niceness of the threads of jobs. Other pods are protected by resources.requests.cpu; this protects the agent's own Lease, probes and
    controllers from its jobs."""
    ionice: Literal["none", "best-effort", "idle"] = "best-effort"
    """Priority of jobs at the node's disks, where their scheduler looks at it (BFQ, mq-deadline): best-effort is served last among others, idle only while
    nobody else wants the disk, which on a busy node may be never."""
    cache_limit: str = Field("5GiB", pattern=r"^[0-9]{1,6}(MiB|GiB)$")
    """What the caches of all repositories may take, and never more than a tenth of their filesystem. With an empty
    cacheHostPath it is refused unless it is below cacheSizeLimit, for the kubelet would evict the agent."""
    cache_size_limit: str = Field("6Gi", pattern=r"^[1-9][0-9]{0,5}(Mi|Gi)$")
    """sizeLimit of the cache's emptyDir, where cacheHostPath is empty; above cacheLimit."""
    cache_host_path: Annotated[str, host_path(optional=True)] = "/var/lib/longshore"
    """The node's folder for caches, in which each installation has one of its namespace's name. It outlives the pod: after an update or a deletion the new
    agent goes on with a backup where the old one was, and does not read all volumes anew. Empty: an emptyDir, which goes with the pod."""
    log_level: LogLevel = "info"
    """Log records from this level on."""
    resources: Resources = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}}
    """Requests and limits. No CPU limit by default: it slows backups without protecting anybody whom requests do not."""
    max_unavailable: (
        Annotated[int, Field(ge=1, le=100_000)] | Annotated[str, Field(pattern=r"^([1-9][0-9]?|100)%$")]
    ) = "10%"
    """How many nodes may be without an agent during an update: a number, or a share such as 10%."""
    termination_grace_period_seconds: int = Field(60, ge=30, le=1 << 31)
    """How long a stopped agent has; it stops its jobs in 25 s."""
    priority_class_name: str = Field("", pattern=OPTIONAL_NAME, max_length=253)
    """PriorityClass of the pods."""
    seccomp_profile: Seccomp = Seccomp()
    """Which system calls are let through."""
    app_armor_profile: AppArmor = {}
    """The container's appArmorProfile (Kubernetes 1.30 and later), such as {type: RuntimeDefault}."""
    se_linux_options: SeLinux = {}
    """The pod's seLinuxOptions; on nodes that enforce SELinux the files of pods need {type: spc_t}."""
    node_selector: Labels = {"kubernetes.io/os": "linux"}
    """Nodes that get an agent."""
    tolerations: Tolerations = []
    """Taints that it bears; [{operator: Exists}] for every node."""
    affinity: Tree = {}
    """The pods' affinity; only the API server judges it."""
    pod_labels: Annotated[Labels, without(*_OURS, "name", "role")] = {}
    """More labels of the pods."""
    pod_annotations: Annotated[Annotations, without(_CONTAINER)] = {}
    """Annotations of the pods."""
    extra_env: Environment = []
    """More environment of the container; each name once, and none that is there already."""
    extra_volumes: list[Tree] = []
    """More volumes of the pods; for a location of provider filesystem, the mounted share."""
    extra_volume_mounts: list[Tree] = []
    """Where they are mounted."""


class Server(_Settings):
    """The server: Deployment longshore-server."""

    enabled: bool = True
    """false beneath Velero's own server: then only the agent is installed."""
    replicas: int = Field(1, ge=1, le=5)
    """One leads, the others stand by."""
    log_level: LogLevel = "info"
    """Log records from this level on."""
    maintenance: Literal["job", "server", "off"] = "job"
    """Where maintenance and verification of repositories run: as Jobs made from this Deployment, in the server's pod, or nowhere."""
    verify_sample: str = Field("100%", pattern=r"^[0-9]+(\.[0-9]+)?%$")
    """The share of a repository's packs that each verification reads, as 5%: all of them in one round."""
    verify_frequency: str = Field("168h", pattern=r"^([0-9]+(h|m|s))+$")
    """How often the newest snapshots of a repository are read back; 0s for never."""
    maintenance_config_map: str = Field("", pattern=OPTIONAL_NAME, max_length=253)
    """ConfigMap with nodes, resources and more of maintenance Jobs, as Velero has it."""
    resources: Resources = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}
    """Requests and limits; of maintenance Jobs, too, unless the ConfigMap says otherwise."""
    node_selector: Labels = {"kubernetes.io/os": "linux"}
    """Nodes on which it may run."""
    tolerations: Tolerations = []
    """Taints that it bears."""
    affinity: Tree = {}
    """The pods' affinity; only the API server judges it."""
    priority_class_name: str = Field("", pattern=OPTIONAL_NAME, max_length=253)
    """PriorityClass of the pods."""
    pod_labels: Annotated[Labels, without(*_OURS, "component")] = {}
    """More labels of the pods."""
    pod_annotations: Annotated[Annotations, without(_CONTAINER)] = {}
    """Annotations of the pods."""
    extra_env: Environment = []
    """More environment of the container; each name once, and none that is there already."""
    extra_volumes: list[Tree] = []
    """More volumes of the pods."""
    extra_volume_mounts: list[Tree] = []
    """Where they are mounted."""


class Location(_Settings):
    """The first BackupStorageLocation; more are made with kubectl."""

    enabled: bool = False
    """Whether it is made."""
    name: Name = "default"
    """Its name; the one called default is meant where none is named."""
    provider: Literal["aws", "filesystem"] = "aws"
    """`aws` for everything behind the S3 protocol, `filesystem` for a mounted share."""
    bucket: str = ""
    """Bucket; for filesystem a folder below config.path, or empty."""
    prefix: str = ""
    """Folder in the bucket."""
    ca_cert: str = Field("", pattern=r"^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$")
    """Certificates trusted for the store, PEM in base64."""
    access_mode: Literal["ReadWrite", "ReadOnly"] = "ReadWrite"
    """ReadOnly for a cluster that only restores from it."""
    config: Texts = {}
    """As Velero's plugin has it: region, s3Url, s3ForcePathStyle, …; for filesystem path."""


class Credentials(_Settings):
    """How the store is entered. Leave both empty for a role of the service account or the node."""

    existing_secret: str = Field("", pattern=OPTIONAL_NAME, max_length=253)
    """A Secret that is there already."""
    secret_contents: str = ""
    """A credentials file, written into Secret cloud-credentials. Helm keeps values in the cluster too: a Secret of your own is better."""
    key: str = Field("cloud", pattern=r"^[A-Za-z0-9_-][-._A-Za-z0-9]*$", max_length=253)
    """The Secret's key."""


class Account(_Settings):
    """A service account."""

    annotations: Annotations = {}
    """Annotations: for a cloud role, say."""


class Accounts(_Settings):
    """Service accounts: node-agent and longshore-server."""

    agent: Account = Account()
    """Of the agent."""
    server: Account = Account()
    """Of the server."""


class NamespaceSettings(_Settings):
    """The namespace itself."""

    create: bool = False
    """Whether the chart holds it, with its pod-security labels. Helm makes a namespace by --create-namespace, without labels; see the notes that it prints."""


class Policy(_Settings):
    """ValidatingAdmissionPolicies: an agent writes what is its own node's alone, and the server makes Jobs of its own Deployment alone."""

    enabled: bool = True
    """Needs Kubernetes 1.30 or later. Without it an agent's token may write PodVolumeBackups and PodVolumeRestores of every node."""


class Definitions(_Settings):
    """Custom resource definitions."""

    install: bool = True
    """Whether longshore install lays them down and updates them. Helm takes them from the chart's crds/ at the first install (unless --skip-crds) and never
    updates them: before an upgrade, kubectl apply --server-side -f crds/. Neither uninstall removes them, for with them every backup's record would go."""


class PodMonitor(_Settings):
    """Prometheus operator's PodMonitor."""

    enabled: bool = False
    """Whether it is made."""
    interval: str = Field("30s", pattern=r"^[1-9][0-9]{0,5}(s|m)$")
    """How often pods are asked."""
    labels: _MonitoringLabels = {}
    """Labels by which your Prometheus selects it."""


class Rules(_Settings):
    """Prometheus operator's PrometheusRule with the alerts."""

    enabled: bool = False
    """Whether it is made."""
    labels: _MonitoringLabels = {}
    """Labels by which your Prometheus selects it."""
    stale_hours: int = Field(26, ge=1, le=100_000)
    """After how many hours without a success a volume counts as stale: a bit more than the time between backups."""
    slow_hours: int = Field(8, ge=1, le=100_000)
    """For how long one job may work before it counts as slow."""
    overdue_hours: int = Field(24, ge=1, le=100_000)
    """For how long maintenance or verification of a repository may be due before it counts as overdue."""


class Dashboard(_Settings):
    """A ConfigMap with the Grafana dashboard."""

    enabled: bool = False
    """Whether it is made."""
    labels: _MonitoringLabels = {"grafana_dashboard": "1"}
    """Labels by which Grafana's sidecar selects it."""


class Monitoring(_Settings):
    """What is seen from outside. /metrics itself is always served."""

    pod_monitor: PodMonitor = PodMonitor()
    """Scraping."""
    rules: Rules = Rules()
    """Alerts."""
    dashboard: Dashboard = Dashboard()
    """Dashboard."""


class Values(_Settings):
    """Settings of Longshore in a cluster."""

    global_: Tree = Field({}, alias="global")
    """Helm's own; not used."""
    image: Image = Image()
    """The image of server and agent."""
    image_pull_secrets: PullSecrets = []
    """Secrets for the image's registry: [{name: …}]."""
    namespace: NamespaceSettings = NamespaceSettings()
    """The namespace itself."""
    crds: Definitions = Definitions()
    """Custom resource definitions."""
    agent: Agent = Agent()
    """The node agent: DaemonSet node-agent."""
    server: Server = Server()
    """The server: Deployment longshore-server."""
    location: Location = Location()
    """The first BackupStorageLocation."""
    credentials: Credentials = Credentials()
    """How the store is entered."""
    service_accounts: Accounts = Accounts()
    """Service accounts."""
    policy: Policy = Policy()
    """An agent writes what is its own node's alone."""
    monitoring: Monitoring = Monitoring()
    """What is seen from outside."""

    def tree(self) -> Tree:
        """All settings as values.yaml lays them out."""
        return self.model_dump(by_alias=True)


def merged(*layers: Mapping[str, Any]) -> Values:
    """Lay settings over the defaults, the last one on top: mappings are merged, everything else is replaced, as Helm does it.

    Raises:
        UsageError: a name or a value is none of ours, or two values do not go together.
    """
    tree: Tree = Values().tree()
    for layer in layers:
        tree = _merge(tree, layer)
    try:
        made = Values.model_validate(tree)
    except ValidationError as err:
        first = err.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"a setting cannot be used: setting={where}, cause={first['msg'].lower().rstrip('.')}",
            "see the names and what they mean with longshore install --show-values",
        ) from err
    if found := conflict(made.tree()):
        raise UsageError(f"{PREFIX}: {found}", "see what they mean with longshore install --show-values")
    return made


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    made = dict(below)
    for key, value in above.items():
        found = made.get(key)
        made[key] = _merge(found, value) if isinstance(found, Mapping) and isinstance(value, Mapping) else value
    return made


def schema() -> Tree:
    """Make values.schema.json."""
    made = Values.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_without_titles(made)}


def _without_titles(node: Any) -> Any:
    if isinstance(node, Mapping):
        kept: Tree = {}
        for key, inner in node.items():
            if key == "title" and isinstance(inner, str):
                continue
            if key == "description" and isinstance(inner, str):
                kept[key] = _one_line(inner)
                continue
            kept[key] = (
                {n: _without_titles(i) for n, i in inner.items()} if key == "properties" else _without_titles(inner)
            )
        return kept
    return [_without_titles(inner) for inner in node] if isinstance(node, list) else node


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def values_yaml() -> str:
    """Write values.yaml: every setting with its meaning and its default."""
    head = "# Settings of Longshore, with their defaults. Written by `make manifests` from python/longshore/install/values.py.\n"
    return head + "\n".join(_lines(Values(), 0)) + "\n"


def _lines(settings: _Settings, indent: int) -> Iterator[str]:
    blank = " " * indent
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        key = field.alias or name
        if indent == 0:
            yield ""
        yield f"{blank}# {_one_line(field.description)}"
        if isinstance(value, _Settings):
            yield f"{blank}{key}:"
            yield from _lines(value, indent + 2)
        else:
            text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False)
            yield f"{blank}{key}: {text.removesuffix('...' + chr(10)).strip()}"
