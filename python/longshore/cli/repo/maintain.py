"""`longshore repo maintain NAME`: one run of maintenance or verification of a cluster's repository, as the server's Jobs do it.

The repository is found through its object, opened with the cluster's keys and the location's credentials, and never made. What came of the run is one line of
JSON in the file that Kubernetes reads as the pod's termination message, and in the log; it holds no secret.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from longshore.cli.cluster import run_options, run_until_signal
from longshore.cli.options import cache_options
from longshore.cli.values import BYTES, FENCE_AFTER, PART

if TYPE_CHECKING:
    from longshore.controllers.maintenance.ledger import Operation, Outcome

__all__ = ["command"]

KINDS: Final = ("BackupRepository", "ResticRepository")
_TERMINATION_LOG: Final = "/dev/termination-log"


@click.command("maintain")
@click.argument("name")
@click.option(
    "--kind", type=click.Choice(KINDS), default=KINDS[0], show_default=True, help="Of the repository's object."
)
@click.option(
    "--operation",
    type=click.Choice(["maintenance", "verification"]),
    default="maintenance",
    show_default=True,
    help="Free what no snapshot needs, or read the newest snapshot of each volume back.",
)
@click.option(
    "--share",
    type=PART,
    metavar="K/N",
    help="Verification: read one part of the packs alone; parts are counted from 0, 0/20 to 19/20 are all.",
)
@click.option(
    "--result-file",
    metavar="FILE",
    help=f"Where one line of JSON says what came of it.  [default: {_TERMINATION_LOG} where there is one]",
)
@click.option(
    "--limit-upload", type=BYTES, metavar="SIZE", help="Send at most so many bytes a second to the store, e.g. 5MiB."
)
@click.option(
    "--limit-download",
    type=BYTES,
    metavar="SIZE",
    help="Fetch at most so many bytes a second from the store, e.g. 20MiB.",
)
@click.option(
    "--max-repack",
    type=BYTES,
    metavar="SIZE",
    help="Maintenance: move at most so much out of packs that are mostly dead.",
)
@click.option(
    "--fence-after",
    type=FENCE_AFTER,
    metavar="DURATION",
    help="Maintenance: judge a session dead when nothing of it changed for so long and over three prunes: at least 1h.  [default: 168h]",
)
@cache_options()
@run_options
def command(
    *,
    name: str,
    kind: str,
    operation: str,
    share: tuple[int, int] | None,
    result_file: str | None,
    limit_upload: int | None,
    limit_download: int | None,
    max_repack: int | None,
    fence_after: int | None,
    cache_dir: str | None,
    cache_limit: int | None,
    log_format: str,
    log_level: str,
    namespace: str,
    kubeconfig: str | None,
) -> int:
    """Do one run of maintenance or verification of a cluster's repository, as the server's Jobs do.

    The server records only runs that it began itself.
    """

    def run(stop: threading.Event) -> int:
        from longshore.controllers.maintenance.ledger import Operation

        outcome = _run(
            name,
            kind=kind,
            operation=Operation(operation),
            share=share,
            limit_upload=limit_upload,
            limit_download=limit_download,
            max_repack=max_repack,
            fence_after=fence_after,
            cache_dir=Path(cache_dir) if cache_dir else None,
            cache_limit_bytes=cache_limit,
            namespace=namespace,
            kubeconfig=kubeconfig,
            stop=stop,
        )
        _report(outcome, result_file)
        return 0 if outcome.succeeded else 1

    return run_until_signal(run, level=log_level, log_format=log_format, unused=())


def _run(
    name: str,
    *,
    kind: str,
    operation: Operation,
    share: tuple[int, int] | None,
    limit_upload: int | None,
    limit_download: int | None,
    max_repack: int | None,
    fence_after: int | None,
    cache_dir: Path | None,
    cache_limit_bytes: int | None,
    namespace: str,
    kubeconfig: str | None,
    stop: threading.Event,
) -> Outcome:
    from longshore.api.repository import BackupRepository, ResticRepository
    from longshore.controllers.cluster import ClusterReader, resource_of
    from longshore.controllers.engine import EngineDataPath
    from longshore.controllers.maintenance.ledger import Outcome
    from longshore.controllers.maintenance.operation import perform
    from longshore.controllers.repositories import Repositories
    from longshore.controllers.repository_keys import RepositoryKeys
    from longshore.errors import LongshoreError
    from longshore.kube.client import KubeClient

    model = next(one for one in (BackupRepository, ResticRepository) if one.definition.kind == kind)
    try:
        with KubeClient.connect(kubeconfig, user_agent="longshore-maintenance") as client:
            found = model.from_dict(client.get(resource_of(model.definition), name, namespace=namespace))
            cluster = ClusterReader(client, namespace=namespace)
            repositories = Repositories(
                EngineDataPath(cache_dir=cache_dir, cache_limit_bytes=cache_limit_bytes),
                cluster=cluster,
                keys=RepositoryKeys(client, namespace=namespace, cluster=cluster),
                forbidden_folders=() if cache_dir is None else (cache_dir,),
            )
            repositories.start(failed=lambda _err: None)
            try:
                return perform(
                    operation,
                    opener=repositories,
                    location=found.spec.backup_storage_location,
                    namespace=found.spec.volume_namespace,
                    stop=stop,
                    share=share,
                    limit_upload=limit_upload,
                    limit_download=limit_download,
                    max_repack=max_repack,
                    fence_after=fence_after,
                )
            finally:
                repositories.stop(timeout_seconds=5.0)
    except LongshoreError as err:
        return Outcome(succeeded=False, message=err.text())


def _report(outcome: Outcome, result_file: str | None) -> None:
    """Write what came of it; a file that cannot be written is no reason to lose a run that went well."""
    from longshore.logs import get_logger

    text = outcome.text()
    path = Path(result_file or _TERMINATION_LOG)
    sys.stdout.write(f"{text}\n")
    if result_file is None and not path.exists():
        return
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as err:
        get_logger(__name__).warning("Result was not written", path=str(path), error=err)
