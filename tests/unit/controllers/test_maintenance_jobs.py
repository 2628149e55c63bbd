"""Maintenance Jobs: made of the server's own pod and the config map, told by what their pods leave, under Velero's own definitions too."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from tests.unit.controllers.maintenance_rig import HOUR, NAMESPACE, RESOURCES, good

from longshore.cli.main import main
from longshore.controllers.maintenance.ledger import Outcome
from longshore.kube.resource import CUSTOM_RESOURCE_DEFINITIONS, JOBS

CRDS = Path(__file__).parents[3] / "daemonset" / "crds"


def test_job_is_the_servers_own_pod(upkeep):
    upkeep.repository()
    upkeep.look()
    (job,) = upkeep.jobs()
    template = job["spec"]["template"]
    pod, (container,) = template["spec"], template["spec"]["containers"]
    assert container["image"] == "registry/longshore:1" and container["command"] == ["/velero"]
    assert container["args"][:3] == ["repo", "maintain", "shop-default-kopia"]
    assert container["env"] and container["volumeMounts"] and container["resources"] == {"limits": {"memory": "512Mi"}}
    assert pod["serviceAccountName"] == "longshore-server" and pod["volumes"] and pod["securityContext"]
    assert not {"livenessProbe", "ports"} & container.keys() and pod["restartPolicy"] == "Never"
    assert pod["affinity"] == {"nodeAffinity": {"n": "a"}}
    labels = template["metadata"]["labels"]
    # Nothing that looks for servers may find it.
    assert "component" not in labels and labels["azure.workload.identity/use"] == "true"
    assert labels["velero.io/repo-name"] == "shop-default-kopia" and template["metadata"]["annotations"] == {
        "iam": "role"
    }
    (owner,) = job["metadata"]["ownerReferences"]
    assert owner["kind"] == "BackupRepository" and job["spec"]["backoffLimit"] == 0


def test_config_map_chooses_nodes_and_resources(upkeep):
    shared = {
        "podResources": {"memoryLimit": "1Gi"},
        "priorityClassName": "low",
        "podLabels": {"team": "storage", "velero.io/repo-name": "forged"},
        "podAnnotations": {"a": "b"},
    }
    own = {
        "loadAffinity": [{"nodeSelector": {"matchLabels": {"disk": "ssd"}}}],
        "podResources": {"cpuRequest": "1", "memoryLimit": "2Gi", "cpuLimit": ""},
        "priorityClassName": "high",
    }
    upkeep.config_map(**{"global": json.dumps(shared), "shop-default-kopia": json.dumps(own)})
    upkeep.restart(config_map="maintenance")
    upkeep.repository()
    upkeep.look()
    template = upkeep.jobs()[0]["spec"]["template"]
    assert template["spec"]["containers"][0]["resources"] == {"requests": {"cpu": "1"}, "limits": {"memory": "2Gi"}}
    assert template["spec"]["priorityClassName"] == "low"
    (term,) = template["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][
        "nodeSelectorTerms"
    ]
    assert term == {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
    assert template["metadata"]["labels"]["team"] == "storage"
    assert template["metadata"]["labels"]["velero.io/repo-name"] == "shop-default-kopia"


def test_a_rate_is_handed_to_the_job(upkeep):
    upkeep.config_map(
        **{
            "global": '{"limitUpload": "1KB", "limitDownload": "20MiB"}',
            "shop-default-kopia": '{"limitUpload": "2KiB"}',
        }
    )
    upkeep.restart(config_map="maintenance")
    upkeep.repository()
    upkeep.look()
    args = upkeep.jobs()[0]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert [one for one in args if one.startswith("--limit")] == ["--limit-upload=2048", "--limit-download=20971520"]


def test_bounds_of_a_prune_are_handed_to_the_job_and_understood_there(upkeep, monkeypatch):
    upkeep.config_map(
        **{"global": '{"maxRepack": "1GiB", "fenceAfter": "72h"}', "shop-default-kopia": '{"fenceAfter": "2d"}'}
    )
    upkeep.restart(config_map="maintenance")
    upkeep.repository()
    upkeep.look()
    args = upkeep.jobs()[0]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert [one for one in args if one.startswith(("--max", "--fence"))] == [
        "--max-repack=1073741824",
        "--fence-after=172800s",
    ]
    asked = {}

    def run(name, **words):
        asked.update(words, name=name)
        now = datetime.now(UTC)
        return Outcome(succeeded=True, message="", started=now, ended=now)

    monkeypatch.setattr("longshore.cli.repo.maintain._run", run)
    assert main(args) == 0
    assert (asked["max_repack"], asked["fence_after"], asked["name"]) == (1 << 30, 172_800, args[2])


@pytest.mark.parametrize(
    ("text", "maintenance", "verification"),
    [("{}", 86_400, 604_800), ('{"runDeadline": "48h"}', 172_800, 172_800), ('{"runDeadline": "0s"}', None, None)],
)
def test_a_job_has_a_deadline(upkeep, text, maintenance, verification):
    upkeep.config_map(**{"global": text})
    upkeep.restart(config_map="maintenance")
    upkeep.repository(ago=8 * 24 * HOUR)
    upkeep.look()
    upkeep.end(upkeep.jobs()[0], text=good())
    upkeep.look()
    assert [job["spec"].get("activeDeadlineSeconds") for job in upkeep.jobs()] == [maintenance, verification]


@pytest.mark.parametrize("report", ["", Outcome(succeeded=False, message="the run was stopped; wait").text()])
def test_run_that_took_too_long_is_told_as_that(upkeep, report):
    upkeep.repository()
    upkeep.look()
    (job,) = upkeep.jobs()
    upkeep.end(job, ok=False, text=report)
    (job,) = upkeep.jobs()
    job["status"]["conditions"][0] |= {
        "reason": "DeadlineExceeded",
        "message": "Job was active longer than specified deadline",
    }
    upkeep.server.put(JOBS, job, namespace=NAMESPACE)
    upkeep.look()
    (entry,) = upkeep.status()["recentMaintenance"]
    assert entry["result"] == "Failed" and "longer than its deadline" in entry["message"]
    assert "seconds=86400" in entry["message"] and "runDeadline" in entry["message"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("{", "no JSON"),
        ('{"runDeadline": "long"}', "field=runDeadline, cause=it is no span"),
        ('{"runDeadline": "59m"}', "field=runDeadline, cause=it is shorter than an hour"),
        ('{"podResources": {"memory": "1Gi"}}', "podResources.memory"),
        ('{"loadAffinity": {"nodeSelector": {}}}', "loadAffinity"),
        ('{"keepLatestMaintenanceJobs": -1}', "keepLatestMaintenanceJobs"),
        ('{"verifyFrequency": "weekly"}', "verifyFrequency"),
        ('{"verifySample": "a bit"}', "verifySample"),
        ('{"verifySample": "0%"}', "verifySample"),
        ('{"limitUpload": "fast"}', "limitUpload"),
        ('{"limitDownload": 0}', "limitDownload"),
        ('{"maxRepack": "much"}', "maxRepack"),
        ('{"fenceAfter": "soon"}', "field=fenceAfter, cause=this is no span"),
        ('{"fenceAfter": "59m"}', "field=fenceAfter, cause=it is shorter than an hour"),
    ],
)
def test_config_map_that_cannot_be_read_begins_nothing_and_is_told(upkeep, entry, said):
    upkeep.config_map(**{"global": entry})
    upkeep.restart(config_map="maintenance")
    upkeep.repository()
    upkeep.look()
    assert upkeep.jobs() == []
    assert (
        said in upkeep.condition("MaintenanceFailed")["message"]
        and "configmap=velero/maintenance" in upkeep.status()["message"]
    )
    # Not again at once, and not in silence for ever: it is tried again when the map may be mended.
    upkeep.config_map()
    upkeep.clock.advance(14 * 60)
    upkeep.look()
    assert upkeep.jobs() == []
    upkeep.clock.advance(2 * 60)
    upkeep.look()
    assert len(upkeep.jobs()) == 1


@pytest.mark.parametrize(
    ("text", "reason", "said"),
    [
        ("", "OOMKilled", "podResources.memoryLimit"),
        ("Traceback: aws_secret_access_key=AKIAIOSFODNN7EXAMPLE", "Error", "last_words="),
        ("", "Error", "kubectl logs job/"),
        ('{"longshore": 1, "succeeded": true, "message": "all well"}', "Error", "failed without a report"),
    ],
)
def test_run_without_a_report_is_told_by_its_pod(upkeep, text, reason, said):
    upkeep.repository()
    upkeep.look()
    upkeep.end(upkeep.jobs()[0], ok=False, text=text, reason=reason)
    upkeep.look()
    (entry,) = upkeep.status()["recentMaintenance"]
    assert entry["result"] == "Failed" and said in entry["message"] and "AKIAIOSFODNN7EXAMPLE" not in entry["message"]


def test_pod_that_is_gone_leaves_the_jobs_own_word(upkeep):
    upkeep.repository()
    upkeep.look()
    upkeep.end(upkeep.jobs()[0], with_pod=False)
    upkeep.look()
    (entry,) = upkeep.status()["recentMaintenance"]
    assert entry["result"] == "Succeeded" and "no report" in entry["message"]


@pytest.fixture
def older(upkeep):
    """Velero's own definitions of 1.18 and 1.9: fields of the status that they do not know are pruned."""
    kept = {
        "backuprepositories": ("phase", "message", "lastMaintenanceTime", "recentMaintenance"),
        "resticrepositories": ("phase", "message", "lastMaintenanceTime"),
    }
    for plural, names in kept.items():
        definition = yaml.safe_load((CRDS / f"velero.io_{plural}.yaml").read_text())
        schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]
        schema.pop("x-kubernetes-preserve-unknown-fields", None)
        schema["properties"] = {name: schema["properties"][name] for name in names}
        upkeep.client.create(CUSTOM_RESOURCE_DEFINITIONS, definition)
    return upkeep


@pytest.mark.parametrize("kind", ["BackupRepository", "ResticRepository"])
def test_definitions_that_prune_the_status_lose_nothing_that_decides(older, kind):
    resource = RESOURCES[kind]
    older.repository(resource=resource, ago=8 * 24 * HOUR, resticIdentifier="")
    older.look(kind=kind)
    older.end(older.jobs()[0], ok=False, text=Outcome(succeeded=False, message="full").text())
    older.look(kind=kind)
    status = older.status(resource=resource)
    assert "conditions" not in status and "full" in status["message"]
    # A server that starts knows from the object alone that it waits, and then that all is done.
    older.restart()
    older.look(kind=kind)
    assert len(older.jobs()) == 1
    older.clock.advance(8 * 24 * HOUR)
    older.look(kind=kind)
    older.end(older.jobs()[1], text=good())
    older.look(kind=kind)
    older.end(older.jobs()[2], text=Outcome(succeeded=True, message="read").text())
    older.restart()
    older.look(kind=kind)
    assert "lastVerificationTime" not in older.status(resource=resource)
    assert [job["metadata"]["labels"]["longshore.io/operation"] for job in older.jobs()] == [
        "maintenance",
        "maintenance",
        "verification",
    ]
    # And it does not write the same again and again.
    seen = []
    for _ in range(3):
        older.look(kind=kind)
        seen.append(
            older.server.get(resource, "shop-default-kopia", namespace=NAMESPACE)["metadata"]["resourceVersion"]
        )
    assert len(set(seen)) == 1 and len(older.jobs()) == 3
