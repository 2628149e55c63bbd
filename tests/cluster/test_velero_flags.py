"""The flags of Velero's own programs, as those print them: a Deployment or DaemonSet whose image alone was exchanged starts."""

import os
import re
import signal
import subprocess
import threading

import pytest

from longshore.cli.main import main
from tests.cluster.conftest import require
from tests.support.components import require_tool

# Velero's command and ours.
PROGRAMS = [
    ("1.9.3", ("server",), ("server",)),
    ("1.18.2", ("server",), ("server",)),
    ("1.9.3", ("restic", "server"), ("node-agent", "server")),
    ("1.18.2", ("node-agent", "server"), ("node-agent", "server")),
]
OURS = {"--help", "--kubeconfig", "--namespace", "--log-level", "--log-format", "--metrics-address"}
VALUES = {
    "--store-validation-frequency": "1m",
    "--default-backup-storage-location": "default",
    "--default-repo-maintain-frequency": "24h0m0s",
    "--default-restic-prune-frequency": "168h0m0s",
    "--repo-maintenance-job-configmap": "repo-maintenance-job-config",
    "--keep-latest-maintenance-jobs": "3",
}
# Those that mean something to the server alone.
SERVERS = set(VALUES)


def flags_of(version, words, home):
    """Give the long flags that a program lists, and whether each takes a value."""
    told = subprocess.run(
        [require_tool("velero", version=version), *words, "--help"],
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout
    found = re.findall(r"^ +(?:-\w, )?(--[\w-]+)(?: (\w+))?(?=  )", told, re.MULTILINE)
    return {name: kind not in {"", "optionalBool"} for name, kind in found if name not in OURS}


@pytest.mark.parametrize(("version", "words", "ours"), PROGRAMS)
def test_every_flag_is_accepted(version, words, ours, tmp_path, monkeypatch, capsys):
    import longshore.node_agent
    import longshore.server

    require(lambda: require_tool("velero", version=version))
    settings = []

    def run(given, stop: threading.Event):
        settings.append(given)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.wait(30)
        return 0

    monkeypatch.setattr(longshore.node_agent, "run", run)
    monkeypatch.setattr(longshore.server, "run", run)
    monkeypatch.setenv("NODE_NAME", "node-1")
    flags = flags_of(version, words, tmp_path)
    assert len(flags) > 8 and flags["--features"] and not flags["--logtostderr"]
    line = []
    for name, takes_value in flags.items():
        line += [name, VALUES.get(name, "1")] if takes_value else [name]
    # What follows a switch must not be taken for its value.
    assert main([*ours, *line, "--namespace", "elsewhere"]) == 0, capsys.readouterr().err
    assert [one.namespace for one in settings] == ["elsewhere"]
    told = [text for text in capsys.readouterr().err.splitlines() if "no meaning here" in text]
    assert len(told) == 1 and all(name in told[0] for name in set(flags) - (SERVERS if ours == ("server",) else set()))
