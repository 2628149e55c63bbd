"""The store crate's conformance suite against a real S3 server.

The suite itself is Rust (`rust/store/src/suite.rs`, run by `rust/store/tests/s3.rs`); it reads its server from the environment and
skips without one. Here the server is started, and a skip counts as a failure.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.components import S3Server

ROOT = Path(__file__).resolve().parents[2]


def test_the_suite_holds_on_a_real_s3_server(s3_server: S3Server, bucket: str) -> None:
    cargo = shutil.which("cargo")
    if cargo is None:
        pytest.fail("cargo is not on the path; install rust")
    env = os.environ | {
        "LONGSHORE_TEST_S3_ENDPOINT": s3_server.endpoint_url,
        "LONGSHORE_TEST_S3_ACCESS_KEY": s3_server.access_key,
        "LONGSHORE_TEST_S3_SECRET_KEY": s3_server.secret_key,
        "LONGSHORE_TEST_S3_BUCKET": bucket,
    }
    command = [cargo, "test", "--locked", "-p", "longshore-store", "--test", "s3", "--", "--ignored"]
    run = subprocess.run(command, cwd=ROOT, env=env, check=False, capture_output=True, text=True, timeout=900)
    output = run.stdout + run.stderr
    assert run.returncode == 0, output[-4000:]
    tests = (ROOT / "rust" / "store" / "tests" / "s3.rs").read_text(encoding="utf-8").count("#[test]")
    assert f"test result: ok. {tests} passed; 0 failed; 0 ignored" in output, output[-4000:]
