"""A real S3 server, by default on loopback: versitygw over a plain folder, where each object is a file that a test can damage.

Promises: own folder, own port, which stays the same across restarts, own random credentials, handed to the server by its environment and
so not to be read from the process list. After `stop` no process is left, nor the folder, if it was a temporary one.

What it is not: durable. It does not sync what it stores, so it stands for S3's answers, not for S3's promise to keep.

Does not know: longshore.
"""

import contextlib
import http.client
import os
import secrets
import ssl
import subprocess
from pathlib import Path
from typing import Any, Self

from tests.support.held_folder import HeldFolder
from tests.support.pki import Authority
from tests.support.processes import ChildProcess, ComponentFailedError, ReservedPort
from tests.support.tools import require_tool

_START_TIMEOUT_SECONDS = 60.0
_STOP_GRACE_SECONDS = 10.0
_REGION = "us-east-1"


class S3Server:
    """versitygw with its posix backend. Use as a context manager, or call `start` and `stop`."""

    def __init__(
        self,
        folder: Path | None = None,
        *,
        access_log: Path | None = None,
        address: str = "127.0.0.1",
        authority: Authority | None = None,
        certified: str | None = None,
    ) -> None:
        """Prepare, start nothing.

        Args:
            folder: where objects and the log live; it is kept afterwards. A temporary one, removed by `stop`, when not given. Its
                filesystem must know extended attributes of users: the server keeps ETags and metadata there.
            access_log: a line for each request is written there.
            address: where it listens.
            authority: it speaks TLS, with a certificate of this authority.
            certified: for this name; None for the address.
        """
        self._own = HeldFolder("s3") if folder is None else None
        self.folder = folder if self._own is None else self._own.path
        self.data_dir = self.folder / "data"
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._accounts_dir = self.folder / "accounts"
        self._accounts_dir.mkdir(mode=0o700, exist_ok=True)
        self._address, self._port = address, ReservedPort(address)
        self._access_log = access_log
        self._child: ChildProcess | None = None
        self._tls: tuple[Path, Path] | None = None
        self._trusts: Path | None = None
        if authority is not None:
            names = (
                {"dns_names": [certified], "addresses": []} if certified else {"dns_names": [], "addresses": [address]}
            )
            self._tls = authority.issue_server("s3", **names).write(self.folder, "server")
            self._trusts = self.folder / "authority.crt"
            self._trusts.write_bytes(authority.certificate)
        self.endpoint_url = f"http{'s' if self._tls else ''}://{address}:{self._port.number}"
        self.region = _REGION
        self.access_key = f"test{secrets.token_hex(8)}"
        self.secret_key = secrets.token_urlsafe(30)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ComponentMissingError: versitygw is not built.
            ComponentFailedError: it did not start, or the folder's filesystem has no extended attributes.
        """
        program = require_tool("versitygw")
        try:
            os.setxattr(self.data_dir, "user.probe", b"1")
        except OSError as err:
            message = (
                f"the S3 server needs a filesystem with user extended attributes: folder={self.folder}, error={err}"
            )
            raise ComponentFailedError(message) from err
        self._child = ChildProcess(
            "versitygw",
            [
                program,
                f"--port={self._address}:{self._port.number}",
                f"--region={_REGION}",
                "--health=/healthz",
                f"--iam-dir={self._accounts_dir}",
                *([f"--access-log={self._access_log}"] if self._access_log else []),
                *([f"--cert={self._tls[0]}", f"--key={self._tls[1]}"] if self._tls else []),
                "--keep-alive",  # off by default, and not like any store one would back up to
                "posix",
                self.data_dir,
            ],
            log_path=self.folder / "versitygw.log",
            env={"ROOT_ACCESS_KEY": self.access_key, "ROOT_SECRET_KEY": self.secret_key},
        )
        self._child.wait_ready(self._not_ready, timeout_seconds=_START_TIMEOUT_SECONDS)

    def restart(self, *, crash: bool = False) -> None:
        """End it, by SIGKILL when `crash`, and start it again at the same address with the same data and credentials."""
        self.halt(crash=crash)
        self.start()

    def halt(self, *, crash: bool = False) -> None:
        """End the server and keep port and data, for a `start` later: an outage."""
        if self._child is not None:
            self._child.stop(grace_seconds=0 if crash else _STOP_GRACE_SECONDS)
            self._child = None

    def slowed(self, part: float) -> contextlib.AbstractContextManager[None]:
        """While the context lasts the server runs for this part of the time only: a store that is slow."""
        assert self._child is not None, "it does not run"
        return self._child.slowed(part)

    def stop(self) -> None:
        """End it for good, and remove the folder if it was a temporary one. A second call does nothing."""
        self.halt(crash=True)
        self._port.close()
        if self._own is not None:
            self._own.remove()

    def bucket(self, name: str) -> str:
        """Make a bucket unless it is there, and return its name."""
        client = self.client()
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=name)
        return name

    def account(self) -> tuple[str, str]:
        """Make one more account that may do everything, and return its access and secret key; it knows no session tokens."""
        access_key, secret_key = f"test{secrets.token_hex(8)}", secrets.token_hex(20)
        self._admin("create-user", "--access", access_key, "--secret", secret_key, "--role", "admin")
        return access_key, secret_key

    def close_account(self, access_key: str) -> None:
        """Take an account away."""
        self._admin("delete-user", "--access", access_key)

    def _admin(self, *words: str) -> None:
        env = {
            "ADMIN_ENDPOINT_URL": self.endpoint_url,
            "ADMIN_ACCESS_KEY_ID": self.access_key,
            "ADMIN_SECRET_ACCESS_KEY": self.secret_key,
            "ADMIN_REGION": _REGION,
        }
        command = [require_tool("versitygw"), "admin", *words]
        run = subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            raise ComponentFailedError(
                f"the S3 server did not do it: command={words[0]}, output={run.stdout + run.stderr}"
            )

    def object_path(self, bucket: str, key: str) -> Path:
        """Tell the file that holds an object's bytes and nothing else; what is written there, the server serves."""
        return self.data_dir / bucket / key

    def client(self, **config: Any) -> Any:
        """Make a boto3 client; `config` goes to botocore's Config."""
        import boto3  # here, so that starting the server costs no import of it
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=_REGION,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            config=Config(**{"s3": {"addressing_style": "path"}, **config}),
            verify=False if self._trusts else None,
        )

    def environment(self) -> dict[str, str]:
        """Give the variables by which any AWS client finds this server and its credentials."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": _REGION,
            "AWS_ENDPOINT_URL": self.endpoint_url,
        }

    def _not_ready(self) -> str | None:
        connection = http.client.HTTPConnection(self._address, self._port.number, timeout=5)
        if self._trusts:
            # Whether its name is right is for tests to ask.
            context = ssl.create_default_context(cafile=self._trusts)
            context.check_hostname = False
            connection = http.client.HTTPSConnection(self._address, self._port.number, timeout=5, context=context)
        try:
            connection.request("GET", "/healthz")
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as err:
            return f"/healthz cannot be asked: error={err}"
        else:
            return None if status == http.HTTPStatus.OK else f"/healthz says {status}"
        finally:
            connection.close()
