"""The commands of each contender: longshore, restic, kopia, rustic, borg.

A contender is a program with a profile: `default` is what its manual's first page gives, `tuned` what
its manual says for speed with the same promises kept (everything encrypted, everything compressed, its own check before upload left on).
Both run in the first round of a row; the better one goes on. Promises that repository, cache and settings of each lie in a folder of its
own, and that no program reads the settings of whoever calls. Does not know what is measured.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.components import find_tool

from benches.volume.process import Cost, run

ROOT = Path(__file__).resolve().parents[2]
PASSPHRASE = "a passphrase for a benchmark"
PEERS = ("restic", "kopia", "rustic", "borg")
ALL = ("longshore", *PEERS)
# What a tuned peer is asked for beyond its defaults, said on the page.
TUNED = {
    "restic": "`--no-scan --read-concurrency 4 --pack-size 64`",
    "kopia": "`--block-hash BLAKE3-256`, parallel uploads of large files, `--parallel 8` (restore: 16)",
    "rustic": "data packs of 64 MiB, tree packs of 16 MiB",
    "borg": "`repokey-blake2`, `--compression zstd,1`",
}


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket of an S3 server, as clients see it."""

    endpoint_url: str
    name: str
    region: str
    access_key: str
    secret_key: str


def binary(tool: str) -> str | None:
    """Path of a program, or None when it is not built."""
    if tool == "longshore":
        path = ROOT / ".venv/bin/longshore"
        return str(path) if path.exists() else None
    found = find_tool(tool)
    return None if found is None else str(found)


class Contender:
    """One program with one profile, with a repository of its own."""

    def __init__(
        self, tool: str, profile: str, work: Path, *, bucket: Bucket | None = None, options: tuple[str, ...] = ()
    ) -> None:
        """Name it; nothing is made before `fresh`.

        Args:
            bucket: keep the repository there instead of in a folder.
            options: more words for longshore's backup.

        Raises:
            FileNotFoundError: the program is not built.
        """
        path = binary(tool)
        if path is None:
            raise FileNotFoundError(f"program is not built, run `tests/tools/build.sh {tool}`")
        self.tool, self.profile, self.path, self.bucket, self.options = tool, profile, path, bucket, options
        self.work = work / f"{tool}-{profile}"
        self.work.mkdir(parents=True, exist_ok=True)
        self.repository = self.work / "repository"
        self.cache = self.work / "cache"
        self.config = self.work / "config"
        self.log = self.work / "log"
        self.prefix = f"{tool}-{profile}"
        self._archives = 0
        self.env = {"PATH": os.environ["PATH"], "HOME": str(self.work), "LANG": "C.UTF-8", **self._env()}

    @property
    def name(self) -> str:
        """`tool/profile`."""
        return f"{self.tool}/{self.profile}"

    @property
    def tuned(self) -> bool:
        """Whether it runs with more than its defaults."""
        return self.profile == "tuned"

    def _env(self) -> dict[str, str]:
        secret = self.work / "passphrase"
        secret.write_text(PASSPHRASE + "\n")
        place, cache, b = str(self.repository), str(self.cache), self.bucket
        keys = {"AWS_ACCESS_KEY_ID": b.access_key, "AWS_SECRET_ACCESS_KEY": b.secret_key} if b else {}
        match self.tool:
            case "longshore":
                where = f"s3://{b.name}/{self.prefix}" if b else self.repository.as_uri()
                more = {"AWS_ENDPOINT_URL": b.endpoint_url, "AWS_REGION": b.region} if b else {}
                own = {"REPOSITORY": where, "KEY_FILE": str(self.work / "key"), "CACHE_DIR": cache}
                return {f"LONGSHORE_{k}": v for k, v in own.items()} | keys | more
            case "restic":
                where = f"s3:{b.endpoint_url}/{b.name}/{self.prefix}" if b else place
                return {
                    "RESTIC_REPOSITORY": where,
                    "RESTIC_PASSWORD_FILE": str(secret),
                    "RESTIC_CACHE_DIR": cache,
                } | keys
            case "kopia":
                own = {"PASSWORD": PASSPHRASE, "CONFIG_PATH": str(self.config), "CACHE_DIRECTORY": cache}
                return {f"KOPIA_{k}": v for k, v in own.items()} | {"KOPIA_CHECK_FOR_UPDATES": "false"} | keys
            case "rustic":
                own = {"RUSTIC_PASSWORD": PASSPHRASE, "RUSTIC_CACHE_DIR": cache, "RUSTIC_NO_PROGRESS": "true"}
                if b is None:
                    return own | {"RUSTIC_REPOSITORY": place}
                return own | {
                    "RUSTIC_REPOSITORY": "opendal:s3",
                    "OPENDAL_BUCKET": b.name,
                    "OPENDAL_ROOT": f"/{self.prefix}",
                    "OPENDAL_ENDPOINT": b.endpoint_url,
                    "OPENDAL_REGION": b.region,
                    "OPENDAL_ACCESS_KEY_ID": b.access_key,
                    "OPENDAL_SECRET_ACCESS_KEY": b.secret_key,
                }
            case _:
                return {
                    "BORG_REPO": place,
                    "BORG_PASSPHRASE": PASSPHRASE,
                    "BORG_BASE_DIR": str(self.work),
                    "BORG_CACHE_DIR": cache,
                    "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
                    "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
                }

    def _run(
        self, *words: str, cwd: Path | None = None, allowed: tuple[int, ...] = (0,), timeout: float = 3600
    ) -> Cost:
        return run([self.path, *words], env=self.env, log=self.log, cwd=cwd, allowed=allowed, timeout_seconds=timeout)

    def version(self) -> str:
        """What the program says that it is."""
        words = ["version"] if self.tool in {"longshore", "restic"} else ["--version"]
        answer = subprocess.run([self.path, *words], env=self.env, check=True, capture_output=True, text=True)
        first = answer.stdout.splitlines()[0].removeprefix(f"{self.tool} ").strip()
        return f"{self.tool} {first.split(' (')[0].split(' compiled')[0].split(' build:')[0]}"

    def fresh(self) -> None:
        """Begin with an empty repository and no cache."""
        self.remove()
        self._archives = 0
        match self.tool:
            case "longshore":
                self._run("repo", "init")
            case "restic":
                self._run("init", "--repository-version", "2")
            case "kopia":
                more = ["--block-hash=BLAKE3-256"] if self.tuned else []
                if self.bucket is None:
                    self.repository.mkdir()
                self._run("repository", "create", *self._kopia_place(), *more)
                self._kopia_policy()
            case "rustic":
                more = ["--set-datapack-size", "64MiB", "--set-treepack-size", "16MiB"] if self.tuned else []
                self._run("init", *more)
            case _:
                self._run("init", "--encryption", "repokey-blake2" if self.tuned else "repokey")

    def _kopia_place(self) -> list[str]:
        b = self.bucket
        if b is None:
            return ["filesystem", "--path", str(self.repository)]
        host = b.endpoint_url.removeprefix("http://")
        place = ["--bucket", b.name, "--prefix", f"{self.prefix}/", "--endpoint", host, "--region", b.region]
        return ["s3", *place, "--access-key", b.access_key, "--secret-access-key", b.secret_key, "--disable-tls"]

    def _kopia_policy(self) -> None:
        # Velero and others switch kopia's compression off; here everybody compresses.
        more = ["--parallel-upload-above-size-mib=64", "--max-parallel-file-reads=8"] if self.tuned else []
        self._run("policy", "set", "--global", "--compression=zstd-fastest", *more)

    def forget_local(self) -> None:
        """Take away what this program keeps on the machine, as on a node that has never seen the repository; reconnect it, untimed."""
        shutil.rmtree(self.cache, ignore_errors=True)
        if self.tool == "kopia":
            self.config.unlink(missing_ok=True)
            self._run("repository", "connect", *self._kopia_place())
            shutil.rmtree(self.cache, ignore_errors=True)
        if self.tool == "borg":
            # The repository's own id check would otherwise ask whether the place is known.
            shutil.rmtree(self.work / ".config/borg/security", ignore_errors=True)

    def backup(self, source: Path) -> Cost:
        """Back a folder up."""
        match self.tool:
            case "longshore":
                return self._run("volume", "backup", "--volume", "bench", *self.options, str(source))
            case "restic":
                more = ["--no-scan", "--read-concurrency", "4", "--pack-size", "64"] if self.tuned else []
                return self._run("backup", *more, ".", cwd=source)
            case "kopia":
                more = ["--parallel=8"] if self.tuned else []
                return self._run("snapshot", "create", "--no-auto-maintenance", *more, str(source))
            case "rustic":
                return self._run("backup", str(source))
            case _:
                self._archives += 1
                more = ["--compression", "zstd,1"] if self.tuned else []
                # Code 1 is a warning, such as a socket that was left out.
                return self._run("create", *more, f"::{self._archives:04}", ".", cwd=source, allowed=(0, 1))

    def restore(self, target: Path, source: Path) -> Cost:
        """Restore the newest snapshot into a folder, which is made when absent."""
        match self.tool:
            case "longshore":
                # Over a tree that is there each program goes by size and time where it can; as it comes Longshore compares content.
                more = ["--trust-times"] if target.exists() and any(target.iterdir()) else []
                return self._run("volume", "restore", "latest", str(target), *more)
            case "restic":
                more = ["--overwrite", "if-changed"] if target.exists() and self.tuned else []
                return self._run("restore", "latest", "--target", str(target), *more)
            case "kopia":
                more = ["--parallel=16"] if self.tuned else []
                more += ["--skip-existing"] if target.exists() and self.tuned else []
                return self._run("restore", self._kopia_latest(), str(target), *more)
            case "rustic":
                return self._run("restore", f"latest:{source}", str(target))
            case _:
                target.mkdir(exist_ok=True)
                return self._run("extract", f"::{self._archives:04}", cwd=target)

    def _kopia_latest(self) -> str:
        command = [self.path, "snapshot", "list", "--json", "--all"]
        answer = subprocess.run(command, env=self.env, check=True, capture_output=True, text=True)
        return str(max(json.loads(answer.stdout), key=lambda row: row["endTime"])["rootEntry"]["obj"])

    def verify(self, *, tags_only: bool = False) -> Cost:
        """Read everything that is stored and check it; `tags_only` is what only longshore can: seals, not chunk ids."""
        match self.tool:
            case "longshore":
                if tags_only:
                    return self._run("volume", "verify", "--tags-only", "latest")
                return self._run("repo", "check", "--read-data")
            case "restic":
                return self._run("check", "--read-data")
            case "kopia":
                more = ["--file-parallelism=8"] if self.tuned else []
                return self._run("snapshot", "verify", "--verify-files-percent=100", *more)
            case "rustic":
                return self._run("check", "--read-data")
            case _:
                return self._run("check", "--verify-data")

    def snapshots(self) -> Cost:
        """Open the repository and list its snapshots."""
        match self.tool:
            case "longshore":
                return self._run("volume", "list")
            case "kopia":
                return self._run("snapshot", "list", "--all")
            case "borg":
                return self._run("list")
            case _:
                return self._run("snapshots")

    def idle(self) -> Cost:
        """Start the program and let it do nothing: what it takes before it has begun."""
        return self._run("version" if self.tool in {"longshore", "restic"} else "--version")

    def stored_bytes(self) -> int:
        """Sum of the sizes of all objects of the repository in its folder; 0 for one in a bucket."""
        return folder_bytes(self.repository)

    def remove(self) -> None:
        """Take away repository, cache and settings."""
        for folder in (self.repository, self.cache, self.work / ".config", self.work / ".cache"):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.config, self.work / "key"):
            file.unlink(missing_ok=True)


def folder_bytes(folder: Path) -> int:
    """Sum of the sizes of all files below a folder."""
    total, todo = 0, [str(folder)]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        total += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            continue
    return total


Make = Callable[[str, str], Contender]
