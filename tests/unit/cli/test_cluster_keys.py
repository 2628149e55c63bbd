"""`longshore repo …` without `--repository`: the cluster that is meant, and its keys in files, through an API server in this process and real repositories."""

from __future__ import annotations

import base64
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from tests.unit.controllers.rig import BSL, NAMESPACE, RESOURCES

from longshore import datapath
from longshore.cli.main import main
from longshore.controllers.cluster import ClusterReader
from longshore.controllers.engine import EngineDataPath
from longshore.controllers.repositories import Repositories
from longshore.controllers.repository_keys import RepositoryKeys
from longshore.kube.client import KubeClient
from longshore.kube.fake import FakeApiServer
from longshore.kube.resource import SECRETS


class World:
    """A cluster with one filesystem location."""

    def __init__(self, folder: Path, server: FakeApiServer) -> None:
        self.folder, self.server = folder, server
        for resource in RESOURCES.values():
            server.register(resource)
        (folder / "store").mkdir(exist_ok=True)
        self.client = KubeClient.from_kubeconfig(server.kubeconfig_path)
        spec = {"provider": "filesystem", "config": {"path": str(folder / "store")}}
        server.put(BSL, {"metadata": {"name": "default"}, "spec": spec}, namespace=NAMESPACE)

    def repository(self, namespace: str, *, missing: bool = True) -> str:
        """Make a repository as an agent does, and the server's object for it."""
        cluster = ClusterReader(self.client, namespace=NAMESPACE)
        keys = RepositoryKeys(self.client, namespace=NAMESPACE, cluster=cluster)
        opened = Repositories(EngineDataPath(), cluster=cluster, keys=keys).open(
            location="default", namespace=namespace, write=True
        )
        spec = {"volumeNamespace": namespace, "backupStorageLocation": "default", "maintenanceFrequency": "24h0m0s"}
        status = {
            "phase": "Ready",
            "conditions": [{"type": "RecoveryKeyMissing", "status": str(opened.recovery_missing)}],
        }
        body = {"metadata": {"name": f"{namespace}-default-kopia"}, "spec": spec, "status": status}
        self.server.put(RESOURCES["BackupRepository"], body, namespace=NAMESPACE)
        assert opened.recovery_missing == missing
        return str(self.folder / "store" / "plugins" / "longshore" / namespace)

    def secret(self, name: str = "longshore-repo-credentials") -> dict[str, bytes]:
        found = self.server.get(SECRETS, name, namespace=NAMESPACE)
        return {} if found is None else {key: base64.b64decode(value) for key, value in found["data"].items()}

    def run(self, *words: object) -> int:
        return main([str(word) for word in (*words, "--kubeconfig", self.server.kubeconfig_path)])


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "LONGSHORE_REPOSITORY",
        "LONGSHORE_KEY_FILE",
        "LONGSHORE_PASSPHRASE",
        "VELERO_NAMESPACE",
        "KUBECONFIG",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def world(tmp_path: Path) -> Any:
    with FakeApiServer() as server:
        made = World(tmp_path, server)
        yield made
        made.client.close()


def opens(place: str, key_file: Path) -> bool:
    datapath.open(datapath.FolderStore(path=place), datapath.Key.from_file(key_file))
    return True


def test_export_then_import_in_another_cluster(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = world.repository("shop")
    file = tmp_path / "root.key"
    assert world.run("repo", "key", "export", file) == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and opens(place, file)
    assert file.read_bytes() == world.secret()["repository-key"]
    assert "outside of the cluster" in capsys.readouterr().out
    world.repository("shop", missing=False)
    # Never overwritten, and what is noted stays.
    assert world.run("repo", "key", "export", file) == 1
    assert "never overwritten" in capsys.readouterr().err
    with FakeApiServer() as server:
        second = World(tmp_path, server)
        assert second.run("repo", "key", "import", file, "--json") == 0
        assert json.loads(capsys.readouterr().out)["entry"] == "repository-key"
        assert second.repository("shop", missing=False) == place
        other = tmp_path / "other.key"
        other.write_text(datapath.Key.generate().to_file_text())
        assert second.run("repo", "key", "import", other) == 1
        assert "--beside" in capsys.readouterr().err
        assert second.run("repo", "key", "import", other, "--beside") == 0
        assert len(second.secret()) == 2
        # Both leave together, and none of them when one has no place.
        (tmp_path / "all.key").touch()
        assert second.run("repo", "key", "export", tmp_path / "all.key") == 1
        (tmp_path / "all.key").unlink()
        assert second.run("repo", "key", "export", tmp_path / "all.key") == 0
        assert len(list(tmp_path.glob("all.key*"))) == 2
        second.client.close()


def test_export_that_cannot_be_written_is_not_noted(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.repository("shop")
    assert world.run("repo", "key", "export", tmp_path / "absent" / "key") == 2
    assert "No such file" in capsys.readouterr().err
    world.repository("shop", missing=True)


def test_passphrase_is_not_exported(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    phrase = base64.b64encode(b"correct horse battery staple and more").decode()
    body = {"metadata": {"name": "longshore-repo-credentials"}, "data": {"repository-key": phrase}}
    world.server.put(SECRETS, body, namespace=NAMESPACE)
    assert world.run("repo", "key", "export", tmp_path / "key") == 2
    told = capsys.readouterr().err
    assert "passphrase" in told and "key add --new-key-file" in told and "horse" not in told
    assert not (tmp_path / "key").exists()


@pytest.mark.parametrize(
    "content", ["", "apiVersion: v1\nkind: Config\nclusters: [] # forty and more bytes", "longshore-key-1:ab"]
)
def test_import_takes_key_files_alone(
    world: World, tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_text(content)
    assert world.run("repo", "key", "import", tmp_path / "key") == 2
    assert "this is no key file" in capsys.readouterr().err and world.secret() == {}


def test_recovery_key_for_all_and_for_none_to_come(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = [world.repository(name) for name in ("bank", "shop")]
    alone = tmp_path / "alone.key"
    assert world.run("repo", "key", "add", "--new-key-file", alone, "--slots-only") == 0
    assert all(opens(place, alone) for place in places) and world.secret("longshore-recovery") == {}
    file = tmp_path / "recovery.key"
    assert world.run("repo", "key", "add", "--new-key-file", file, "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [row["repository"] for row in rows[:2]] == ["bank/default", "shop/default"]
    assert rows[-1]["repositories_done"] == 2 and rows[-1]["key_file_written"]
    assert world.secret("longshore-recovery") == {"recovery-key": file.read_bytes()}
    assert all(opens(place, file) for place in places)
    assert opens(world.repository("later", missing=False), file)
    # Another one does not take its place, and its new file is gone again.
    assert world.run("repo", "key", "add", "--new-key-file", tmp_path / "third.key") == 1
    assert "another recovery key" in capsys.readouterr().err and not (tmp_path / "third.key").exists()
    assert world.run("repo", "key", "add", "--new-key-file", file) == 0
    assert "opens it already" in capsys.readouterr().out


def test_one_repository_that_fails_keeps_none_from_its_turn(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world.repository("bank")
    place = world.repository("shop")
    (tmp_path / "store" / "plugins" / "longshore" / "bank").rename(tmp_path / "gone")
    assert world.run("repo", "key", "add", "--new-key-file", tmp_path / "recovery.key") == 3
    told = capsys.readouterr()
    assert "repository=bank/default" in told.err and "1 of 2" in told.out
    assert opens(place, tmp_path / "recovery.key")
    assert world.run("repo", "status") == 3
    assert "shop" in capsys.readouterr().out


def test_slots_are_listed_and_removed(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("bank", "shop"):
        world.repository(name)
    assert world.run("repo", "key", "add", "--new-key-file", tmp_path / "recovery.key", "--slots-only") == 0
    capsys.readouterr()
    assert world.run("repo", "key", "list", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row.get("label") for row in rows[:-1] if row["namespace"] == "shop" and row["opened_here"]] == ["cluster"]
    roots = [row["name"] for row in rows[:-1] if row["opened_here"]]
    assert len(rows) == 5 and len(roots) == 2
    assert world.run("repo", "key", "remove", roots[0]) == 2
    assert "--yes" in capsys.readouterr().err
    assert world.run("repo", "key", "remove", roots[0], "--yes") == 2
    assert "through which the cluster opens" in capsys.readouterr().err
    assert world.run("repo", "key", "remove", "recovery", "--yes") == 0
    assert "Removed 2 key slots" in capsys.readouterr().out
    assert world.run("repo", "key", "remove", "recovery", "--yes") == 2
    assert world.run("repo", "key", "list", "-o", "yaml") == 0


def test_status_and_get(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    place = world.repository("shop")
    assert world.run("repo", "status") == 0
    told = capsys.readouterr()
    assert "at risk" in told.out and place in told.out and "repo key export" in told.err
    assert world.run("repo", "get") == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[1].split()[:2] == ["shop-default-kopia", "Ready"] and "repo key export" in told.err
    assert world.run("repo", "get", "shop-default-kopia", "-o", "json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["recovery_key_missing"] is True and row["last_maintenance"] is row["last_verification"] is None
    assert world.run("repo", "get", "absent") == 1
    assert "name=absent" in capsys.readouterr().err


def test_a_word_on_the_command_line_decides_what_is_meant(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.repository("shop")
    monkeypatch.setenv("LONGSHORE_REPOSITORY", str(tmp_path / "nowhere"))
    assert world.run("repo", "status") == 0
    assert "shop" in capsys.readouterr().out
    assert main(["repo", "status", "--repository", str(tmp_path), "--namespace", "velero"]) == 2
    assert "both given" in capsys.readouterr().err
    assert world.run("repo", "status", "--key-file", tmp_path / "key") == 2
    assert "cluster's keys" in capsys.readouterr().err
    # The environment names a repository, and nothing names a cluster.
    assert main(["repo", "status"]) == 2
    assert "key" in capsys.readouterr().err
    monkeypatch.delenv("LONGSHORE_REPOSITORY")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))
    assert main(["repo", "status"]) == 2
    told = capsys.readouterr().err
    assert "no repository is named" in told and "--repository URL" in told
    # Words that are for one of the two are refused for the other.
    assert main(["repo", "key", "import", "x", "--beside", "-r", str(tmp_path)]) == 2
    assert world.run("repo", "key", "export", tmp_path / "k", "--label", "x") == 2
