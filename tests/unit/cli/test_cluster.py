"""The two long-running commands: flags and environment become settings, Velero's flags are set aside, signals stop."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from longshore.cli.main import main
from longshore.controllers.limits import Bounds

VELERO = [
    *("--features=EnableCSI", "--colorized=false", "--data-mover-prepare-timeout=30m", "--resource-timeout", "10m"),
    *("-v", "4", "--logtostderr", "--node-agent-configmap", "node-agent-config"),
]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Take the place of the agent and the server; gives the settings with which they were run."""
    import longshore.node_agent
    import longshore.server

    settings: list[Any] = []

    def run(given: Any, stop: threading.Event) -> int:
        settings.append(given)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(30)
        return 0

    monkeypatch.setattr(longshore.node_agent, "run", run)
    monkeypatch.setattr(longshore.server, "run", run)
    for name in ("NODE_NAME", "VELERO_NAMESPACE", "LONGSHORE_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    return settings


def test_agent_takes_its_environment(started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NODE_NAME", "node-1")
    monkeypatch.setenv("VELERO_NAMESPACE", "backups")
    assert main(["node-agent"]) == 0
    (settings,) = started
    assert (settings.node_name, settings.namespace, settings.metrics_address) == ("node-1", "backups", ":8085")
    assert settings.host_pods_root == Path("/host_pods")
    assert settings.memory_limit_bytes is settings.cache_dir is settings.kubeconfig is None
    assert (settings.bounds, settings.limits_dir) == (Bounds(), None)
    # Jobs stand behind the threads that keep the Lease, whoever starts the agent.
    assert (settings.nice, settings.ionice) == (10, "best-effort")


def test_agent_takes_its_limits_from_flags_and_environment(
    started: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {
        "LIMIT_UPLOAD": "5MiB",
        "LIMIT_DOWNLOAD": "1KiB",
        "LIMIT_REQUESTS": "4",
        "LIMITS_DIR": "/l",
        "NICE": "0",
        "IONICE": "none",
    }.items():
        monkeypatch.setenv(f"LONGSHORE_{name}", value)
    flags = ["--limit-upload=2KiB", "--limit-download=3KiB", "--limit-requests=7", "--limits-dir=/m", "--nice=3"]
    assert main(["node-agent", "--node-name=n"]) == 0
    assert main(["node-agent", "--node-name=n", *flags, "--ionice=idle"]) == 0
    by_environment, by_flags = started
    assert by_environment.bounds == Bounds(upload=5 << 20, download=1 << 10, requests=4)
    assert (by_environment.limits_dir, by_environment.nice, by_environment.ionice) == (Path("/l"), 0, "none")
    assert by_flags.bounds == Bounds(upload=2 << 10, download=3 << 10, requests=7)
    assert (by_flags.limits_dir, by_flags.nice, by_flags.ionice) == (Path("/m"), 3, "idle")
    assert main(["node-agent", "--node-name=n", "--limit-requests=0"]) == 2
    capsys.readouterr()


def test_agent_takes_its_flags_and_veleros(started: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "node-agent",
        "server",
        "--node-name",
        "n",
        "--memory-limit",
        "1Gi",
        "--concurrency=3",
        "--cache-dir",
        "/c",
    ]
    words += ["-n", "v", "--kubeconfig", "/k", "--host-pods-root", "/p", "--metrics-address", "127.0.0.1:0", *VELERO]
    assert main(words) == 0
    (settings,) = started
    assert (settings.memory_limit_bytes, settings.concurrency, settings.cache_dir) == (1 << 30, 3, Path("/c"))
    assert (settings.namespace, settings.kubeconfig, settings.metrics_address) == ("v", "/k", "127.0.0.1:0")
    logged = [line for line in capsys.readouterr().err.splitlines() if "no meaning here" in line]
    assert len(logged) == 1
    assert "--node-agent-configmap" in logged[0]


def test_agent_refuses_what_it_does_not_know(started: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["node-agent", "--node-name", "n", "--nonsense"]) == 2
    assert main(["node-agent", "client", "--node-name", "n"]) == 2
    assert main(["node-agent"]) == 2
    assert "NODE_NAME" in capsys.readouterr().err
    assert started == []


@pytest.mark.parametrize("level", ["trace", "PANIC", "debug"])
def test_veleros_levels_are_known(level: str, started: list[Any]) -> None:
    assert main(["node-agent", "--node-name", "n", "--log-level", level, "--log-format", "json"]) == 0


def test_server_takes_its_flags_and_veleros(started: list[Any]) -> None:
    assert main(["server", "--namespace", "v", "--default-backup-storage-location", "nas", *VELERO]) == 0
    (settings,) = started
    assert (settings.namespace, settings.default_backup_storage_location) == ("v", "nas")
    assert settings.store_validation_frequency_seconds == 60.0


@pytest.mark.parametrize(
    ("text", "seconds"), [("0s", 0.0), ("1h30m", 5400.0), ("soon", None), ("-1m", None), ("5", None)]
)
def test_server_reads_spans_as_velero_writes_them(started: list[Any], text: str, seconds: float | None) -> None:
    assert main(["server", f"--store-validation-frequency={text}"]) == (2 if seconds is None else 0)
    assert [one.store_validation_frequency_seconds for one in started] == ([] if seconds is None else [seconds])


def test_switches_of_velero_swallow_no_word(started: list[Any]) -> None:
    assert main(["server", "--default-snapshot-move-data", "--restore-only", "--namespace", "v"]) == 0
    assert started[0].namespace == "v"


@pytest.mark.parametrize(("text", "code"), [("setuid,devices", 0), ("none", 0), ("everything", 2)])
def test_agent_reads_what_restores_may_bring_back(started: list[Any], text: str, code: int) -> None:
    assert main(["node-agent", "--node-name", "n", "--restore-allow", text]) == code
    assert [set(one.restore_allow) for one in started] == ([] if code else [set(text.split(",")) - {"none"}])


@pytest.mark.parametrize("words", [["node-agent", "--node-name", "n"], ["server"]])
@pytest.mark.parametrize("content", [None, "no: [yaml", "kind: Config\n"], ids=["missing", "not yaml", "no context"])
def test_a_kubeconfig_without_use_ends_at_once(
    words: list[str],
    content: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import longshore.node_agent
    import longshore.server

    def never(*_args: Any, **_kwargs: Any) -> Any:
        raise AssertionError("it was started")

    monkeypatch.setattr(longshore.node_agent, "NodeAgent", never)
    monkeypatch.setattr(longshore.server, "Server", never)
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    assert main([*words, "--kubeconfig", str(path)]) == 2
    told = capsys.readouterr().err
    assert str(path) in told
    assert "check the path, the context" in told


def test_agent_is_called_as_velero_1_9_calls_it(started: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["restic", "server", "--node-name", "n", "--features="]) == 0
    assert started[0].node_name == "n"
    main(["--help"])
    assert "restic" not in capsys.readouterr().out


@pytest.mark.parametrize(("kind", "name"), [("DaemonSet", "node-agent"), ("Deployment", "longshore-server")])
def test_what_the_manifests_say_is_understood(
    kind: str, name: str, started: list[Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Arguments and environment of the pods, through the command itself, come to the settings that were asked for."""
    from longshore.install.release import objects
    from longshore.install.values import merged

    values = merged({"agent": {"concurrency": 7, "bufferMemory": "300MiB"}})
    (workload,) = [
        one for one in objects(values, namespace="apart") if (one["kind"], one["metadata"]["name"]) == (kind, name)
    ]
    container = workload["spec"]["template"]["spec"]["containers"][0]
    fields = {"spec.nodeName": "node-9", "metadata.namespace": "apart"}
    for one in container["env"]:
        value = one.get("value") or fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
        monkeypatch.setenv(one["name"], value)
    assert main(container["args"]) == 0
    (settings,) = started
    assert (settings.namespace, settings.cache_dir) == ("apart", Path("/scratch/longshore"))
    assert settings.metrics_address == f":{container['ports'][0]['containerPort']}"
    assert "Ignoring flags" not in capsys.readouterr().err
    if kind == "DaemonSet":
        assert (settings.node_name, settings.concurrency, settings.memory_limit_bytes) == ("node-9", 7, 300 << 20)
        assert settings.host_pods_root == Path("/host_pods")
        grace = workload["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        assert settings.grace_seconds < grace
