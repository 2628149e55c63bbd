"""Every alert fires when it must and is silent when it must, as Prometheus itself judges."""

import subprocess

import pytest
import yaml

from longshore.install.alerts import RULES
from longshore.install.release import objects
from longshore.install.values import merged
from tests.cluster.conftest import require
from tests.support.components import require_tool

NAMES = [rule["alert"] for rule in RULES]
CLAIM = 'namespace="shop",claim="orders",pod="",volume=""'
POD = 'namespace="shop",claim="",pod="db-0",volume="scratch"'
SUCCESS, FAILED = "longshore_volume_last_success_timestamp_seconds", "longshore_volume_last_backup_failed"
WAITING, WORKING = (
    "longshore_volume_waiting_since_timestamp_seconds",
    "longshore_volume_working_since_timestamp_seconds",
)
UPKEEP, REPO = "longshore_repository", '{kind="BackupRepository",name="r"}'
HOUR = 60

# Alert; series with values a minute; after how many minutes it is judged; whether it fires. The clock begins at 0.
CASES = [
    ("LongshoreBackupFailed", {f"{FAILED}{{{CLAIM}}}": "0x10 1x20"}, 29, True),
    ("LongshoreBackupFailed", {f"{FAILED}{{{POD}}}": "1x60"}, 10, True),
    ("LongshoreBackupFailed", {f"{FAILED}{{{CLAIM}}}": "0x60"}, 50, False),
    # Failed once, good before the five minutes were over.
    ("LongshoreBackupFailed", {f"{FAILED}{{{CLAIM}}}": "1x2 0x60"}, 30, False),
    ("LongshoreBackupStale", {f"{SUCCESS}{{{CLAIM}}}": f"0x{30 * HOUR}"}, 26 * HOUR + 15, True),
    ("LongshoreBackupStale", {f"{SUCCESS}{{{CLAIM}}}": f"0x{30 * HOUR}"}, 26 * HOUR - 5, False),
    # A success of ten years later, by an agent whose clock was ahead.
    ("LongshoreBackupStale", {f"{SUCCESS}{{{CLAIM}}}": f"315360000x{30 * HOUR}"}, HOUR, True),
    # A newer success is told by another process.
    (
        "LongshoreBackupStale",
        {f'{SUCCESS}{{{CLAIM},instance="a"}}': f"0x{30 * HOUR}", f'{SUCCESS}{{{CLAIM},instance="b"}}': f"36000x{30 * HOUR}"},
        27 * HOUR,
        False,
    ),
    ("LongshoreBackupStale", {f"{SUCCESS}{{{POD}}}": f"0x{30 * HOUR}"}, 27 * HOUR, False),
    ("LongshoreBackupStuck", {f"{WAITING}{{{CLAIM}}}": "0x60"}, 40, True),
    ("LongshoreBackupStuck", {f"{WAITING}{{{CLAIM}}}": "0x60"}, 25, False),
    ("LongshoreBackupStuck", {f"{WAITING}{{{CLAIM}}}": "0x20 stale"}, 40, False),
    ("LongshoreBackupSlow", {f"{WORKING}{{{CLAIM}}}": f"0x{9 * HOUR}"}, 8 * HOUR + 10, True),
    ("LongshoreBackupSlow", {f"{WORKING}{{{CLAIM}}}": f"0x{9 * HOUR}"}, 7 * HOUR, False),
    ("LongshoreRepositoryNotReady", {'longshore_repository_ready{kind="BackupRepository",name="r"}': "0x60"}, 20, True),
    ("LongshoreRepositoryNotReady", {'longshore_repository_ready{kind="BackupRepository",name="r"}': "0x10 1x60"}, 30, False),
    ("LongshoreLocationUnavailable", {'velero_backup_location_status_gauge{backup_location_name="d"}': "0x60"}, 20, True),
    ("LongshoreLocationUnavailable", {'velero_backup_location_status_gauge{backup_location_name="d"}': "1x60"}, 50, False),
    ("LongshoreMaintenanceFailed", {f"{UPKEEP}_last_maintenance_failed{REPO}": "1x300"}, 130, True),
    ("LongshoreMaintenanceFailed", {f"{UPKEEP}_last_maintenance_failed{REPO}": "1x60 0x200"}, 130, False),
    ("LongshoreMaintenanceOverdue", {f"{UPKEEP}_maintenance_due_timestamp_seconds{REPO}": f"0x{26 * HOUR}"}, 25 * HOUR, True),
    ("LongshoreMaintenanceOverdue", {f"{UPKEEP}_maintenance_due_timestamp_seconds{REPO}": f"0x{26 * HOUR}"}, 23 * HOUR, False),
    ("LongshoreVerificationFailed", {f"{UPKEEP}_last_verification_failed{REPO}": "1x60"}, 20, True),
    ("LongshoreVerificationFailed", {f"{UPKEEP}_last_verification_failed{REPO}": "0x60"}, 20, False),
    ("LongshoreVerificationOverdue", {f"{UPKEEP}_verification_due_timestamp_seconds{REPO}": f"0x{26 * HOUR}"}, 25 * HOUR, True),
    ("LongshoreVerificationOverdue", {f"{UPKEEP}_verification_due_timestamp_seconds{REPO}": f"3600x{26 * HOUR}"}, 24 * HOUR + 30, False),
    ("LongshoreKeyAtRisk", {'longshore_repository_recovery_key_missing{kind="BackupRepository",name="r"}': "1x90"}, 70, True),
    ("LongshoreKeyAtRisk", {'longshore_repository_recovery_key_missing{kind="BackupRepository",name="r"}': "1x30 0x60"}, 70, False),
]  # fmt: skip


def groups(**rules):
    values = merged({"monitoring": {"rules": {"enabled": True, **rules}}})
    (made,) = [one for one in objects(values, namespace="velero") if one["kind"] == "PrometheusRule"]
    return made["spec"]


@pytest.fixture(scope="module")
def promtool():
    require(lambda: require_tool("promtool"))
    program = require_tool("promtool")
    return lambda *words: subprocess.run([program, *words], capture_output=True, text=True, check=False, timeout=120)


def judge(promtool, folder, cases, *, rules=None):
    (folder / "rules.yaml").write_text(yaml.safe_dump(rules or groups()))
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in series.items()],
            "promql_expr_test": [
                {
                    "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})',
                    "eval_time": f"{minutes}m",
                    "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
                }
            ],
        }
        for alert, series, minutes, fires in cases
    ]
    (folder / "tests.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "tests": tests}))
    return promtool("test", "rules", str(folder / "tests.yaml"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}-{'fires' if case[3] else 'silent'}")
def test_alert(promtool, tmp_path, case):
    done = judge(promtool, tmp_path, [case])
    assert done.returncode == 0, done.stdout + done.stderr


def test_judge_can_fail(promtool, tmp_path):
    alert, series, minutes, fires = CASES[0]
    assert judge(promtool, tmp_path, [(alert, series, minutes, not fires)]).returncode != 0


def test_each_alert_has_both_cases():
    for fires in (True, False):
        assert {case[0] for case in CASES if case[3] is fires} == set(NAMES)


def test_limits_are_settings(promtool, tmp_path):
    case = ("LongshoreBackupStale", {f"{SUCCESS}{{{CLAIM}}}": f"0x{30 * HOUR}"}, 3 * HOUR, True)
    done = judge(promtool, tmp_path, [case], rules=groups(staleHours=2))
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_are_sound(promtool, tmp_path):
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(groups()))
    done = promtool("check", "rules", "--lint-fatal", str(tmp_path / "rules.yaml"))
    assert done.returncode == 0, done.stdout + done.stderr
