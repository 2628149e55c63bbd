"""What settings may be: each value that the API server would refuse is refused before, and so are two that do not go together, with both figures."""

import re
from decimal import Decimal

import pytest

from longshore.errors import UsageError
from longshore.install.release import objects
from longshore.install.together import AGENT_ENV, CHECKS, PREFIX, SERVER_ENV, amount, conflict
from longshore.install.values import Values, merged, schema


def settings(path, value):
    for part in reversed(path.split(".")):
        value = {part: value}
    return value


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("image.tag", "a b"),
        ("image.repository", "longshore "),
        ("imagePullSecrets", [{"name": "Upper"}]),
        ("imagePullSecrets", [{"name": "twice"}, {"name": "twice"}]),
        ("agent.kubeletRootDir", "/var/../lib"),
        ("agent.cacheHostPath", "/var/lib/.."),
        ("agent.maxUnavailable", "0%"),
        ("agent.maxUnavailable", "101%"),
        ("agent.resources", {"limits": {"memory": "1 GiB"}}),
        ("agent.resources", {"limits": {"memory": -1}}),
        ("agent.resources", {"limit": {"memory": "1Gi"}}),
        ("agent.resources", {"limits": {"mem": "1Gi"}}),
        ("agent.nodeSelector", {"disk": "a b"}),
        ("agent.nodeSelector", {"-disk": "ssd"}),
        ("agent.podLabels", {"app": "x" * 64}),
        ("agent.podLabels", {"app.kubernetes.io/name": "other"}),
        ("agent.podAnnotations", {"a b": "c"}),
        ("agent.podAnnotations", {"kubectl.kubernetes.io/default-container": "c"}),
        ("agent.tolerations", [{"operator": "Exists", "value": "x"}]),
        ("agent.tolerations", [{"operator": "Equal", "value": "x"}]),
        ("agent.tolerations", [{"operator": "Exists", "tolerationSeconds": 5}]),
        ("agent.priorityClassName", "Upper"),
        ("agent.appArmorProfile", {"type": "Localhost"}),
        ("agent.seccompProfile", {"type": "Localhost", "localhostProfile": "../x.json"}),
        ("agent.extraEnv", [{"name": "A=B"}]),
        ("agent.extraEnv", [{"value": "b"}]),
        ("agent.extraEnv", [{"name": "A", "value": "b", "valueFrom": {}}]),
        ("agent.extraCapabilities", ["cap_mknod"]),
        ("location.name", "a..b"),
        ("location.caCert", "no base64"),
        ("credentials.key", "a/b"),
        ("serviceAccounts.agent.annotations", {"a/b/c": "d"}),
        ("monitoring.dashboard.labels", {"app.kubernetes.io/part-of": "other"}),
    ],
)
def test_what_the_server_would_refuse_is_refused_by_name(path, value):
    with pytest.raises(UsageError, match=f"setting={re.escape(path)}"):
        merged(settings(path, value))


@pytest.mark.parametrize(
    ("layer", "figures"),
    [
        ({"cacheHostPath": "", "cacheLimit": "10GiB"}, "agent.cacheLimit=10GiB, agent.cacheSizeLimit=6Gi"),
        ({"cacheHostPath": "", "cacheLimit": "6144MiB"}, "agent.cacheLimit=6144MiB, agent.cacheSizeLimit=6Gi"),
        (
            {"cacheHostPath": "/k/pods", "kubeletRootDir": "/k"},
            "agent.cacheHostPath=/k/pods, agent.kubeletRootDir=/k",
        ),
        (
            {"cacheHostPath": "/var/lib/kubelet/pods/x"},
            "agent.cacheHostPath=/var/lib/kubelet/pods/x, agent.kubeletRootDir=/var/lib/kubelet",
        ),
        ({"bufferMemory": "385MiB"}, "agent.bufferMemory=385MiB, agent.resources.limits.memory=512Mi"),
        (
            {"resources": {"limits": {"memory": "300M"}}},
            "agent.bufferMemory=256MiB, agent.resources.limits.memory=300M",
        ),
        (
            {"resources": {"requests": {"cpu": 2}, "limits": {"cpu": "1999m"}}},
            "agent.resources.requests.cpu=2, limits.cpu=1999m",
        ),
        ({"extraEnv": [{"name": "HOME", "value": "/"}]}, "agent.extraEnv=HOME"),
        ({"extraEnv": [{"name": "A"}, {"name": "A"}]}, "agent.extraEnv=A"),
        ({"seccompProfile": {"type": "Localhost"}}, 'agent.seccompProfile.type=Localhost, localhostProfile=""'),
    ],
)
def test_what_does_not_go_together_is_refused_with_both_figures(layer, figures):
    with pytest.raises(UsageError) as caught:
        merged({"agent": layer})
    assert str(caught.value).startswith(PREFIX) and str(caught.value).endswith(f": {figures}")


@pytest.mark.parametrize(
    "layer",
    [
        {"cacheLimit": "6143MiB", "cacheHostPath": ""},
        {"cacheLimit": "10GiB"},
        {"cacheLimit": "10GiB", "cacheHostPath": "/var/cache/longshore"},
        {"cacheHostPath": "/var/lib/kubelet/pods-of-longshore"},
        {"bufferMemory": "384MiB"},
        {"bufferMemory": "2GiB", "resources": {"limits": {"memory": "2.5Gi"}}},
        {"resources": {"requests": {"cpu": "1000m"}, "limits": {"cpu": 1}}},
    ],
)
def test_what_goes_together_is_taken(layer):
    merged({"agent": layer})


def test_defaults_go_together():
    assert conflict(Values().tree()) is None


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ("512Mi", 512 << 20),
        ("1.5Gi", 3 << 29),
        ("1G", 10**9),
        ("256MiB", 256 << 20),
        ("100m", "0.1"),
        (0.5, "0.5"),
        ("7", 7),
    ],
)
def test_quantities_are_read(given, number):
    assert amount(given) == Decimal(number)


@pytest.mark.parametrize(("kind", "ours"), [("DaemonSet", AGENT_ENV), ("Deployment", SERVER_ENV)])
def test_our_variables_are_those_of_the_containers(kind, ours):
    (found,) = [one for one in objects(merged(), namespace="velero") if one["kind"] == kind]
    assert tuple(one["name"] for one in found["spec"]["template"]["spec"]["containers"][0]["env"]) == ours


def test_chart_and_command_have_the_same_rules():
    assert CHECKS.count("{{- fail ") == CHECKS.count(PREFIX) == 3 + 2 * 3 + 2 + 1


def test_no_pattern_lets_other_keys_through():
    # patternProperties says what those keys hold that it matches, and nothing of all others.
    assert "patternProperties" not in str(schema())
