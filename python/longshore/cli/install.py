"""`longshore install`: put server, agents, rights and definitions into a cluster, or bring them up to date. The objects are :mod:`longshore.install`'s.

Velero's flags for the location are taken as Velero takes them. Without a bucket no location is made. What is there already is updated in place: the same
command installs and upgrades.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from longshore.cli.cluster import namespace_option
from longshore.cli.options import output_options
from longshore.cli.output.sink import Output
from longshore.errors import UsageError

__all__ = ["command", "uninstall_command"]


def _cluster(function: Any) -> Any:
    for option in (
        click.option("--kubeconfig", metavar="FILE", help="How to reach the API server.  [default: KUBECONFIG]"),
        namespace_option("Where it is installed."),
    ):
        function = option(function)
    return function


def _settings(function: Any) -> Any:
    for option in (
        click.option(
            "--set", "assignments", multiple=True, metavar="NAME=VALUE", help="One setting, as agent.concurrency=4."
        ),
        click.option(
            "--values",
            "-f",
            "files",
            multiple=True,
            metavar="FILE",
            type=click.Path(exists=True, dir_okay=False),
            help="Settings in YAML, as the Helm chart takes them; may be repeated, the last one wins.",
        ),
    ):
        function = option(function)
    return function


@click.command("install")
@_cluster
@_settings
@click.option("--image", metavar="IMAGE", help="Image of server and agents: registry/name:tag or name@sha256:….")
@click.option("--provider", type=click.Choice(["aws", "filesystem"]), help="Kind of the store.  [default: aws]")
@click.option("--bucket", metavar="NAME", help="Bucket of the first storage location.")
@click.option("--prefix", metavar="PREFIX", help="Folder in the bucket.")
@click.option(
    "--backup-location-config", metavar="KEY=VALUE,…", help="The location's config, as region=eu-1,s3Url=https://…."
)
@click.option(
    "--secret-file",
    metavar="FILE",
    type=click.Path(exists=True, dir_okay=False),
    help="Credentials of the store, kept in Secret cloud-credentials.",
)
@click.option("--agent-only", is_flag=True, help="No server: it is Velero's.")
@click.option("--show-values", is_flag=True, help="Show every setting, its meaning and its default, and do nothing.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Change nothing. With -o the objects are shown, and no cluster is asked; without it the API server judges them.",
)
@click.option("--output", "-o", "form", type=click.Choice(["yaml", "json"]), help="With --dry-run: show the objects.")
@output_options
def command(
    *,
    output: Output,
    kubeconfig: str | None,
    namespace: str,
    files: tuple[str, ...],
    assignments: tuple[str, ...],
    image: str | None,
    provider: str | None,
    bucket: str | None,
    prefix: str | None,
    backup_location_config: str | None,
    secret_file: str | None,
    agent_only: bool,
    show_values: bool,
    dry_run: bool,
    form: str | None,
) -> int:
    """Install or update Longshore in a cluster."""
    from longshore.install.values import merged, values_yaml

    if show_values:
        output.line(values_yaml().rstrip("\n"))
        output.summary({"exit_code": 0}, [])
        return 0
    if form and not dry_run:
        raise UsageError("--output is given without --dry-run", "say --dry-run too, to see the objects")
    flags = _flags(
        image=image,
        provider=provider,
        bucket=bucket,
        prefix=prefix,
        config=backup_location_config,
        secret_file=secret_file,
        agent_only=agent_only,
    )
    layers = [{"namespace": {"create": True}}, *(_read(name) for name in files), flags, *map(_assigned, assignments)]
    values = merged(*layers)
    if form:
        return _show(values, namespace=namespace, form=form)
    return _install(output, values, kubeconfig=kubeconfig, namespace=namespace, dry_run=dry_run)


@click.command("uninstall")
@_cluster
@_settings
@click.option(
    "--crds",
    is_flag=True,
    help="Remove the custom resource definitions too, and with them every record of a backup in the cluster.",
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@output_options
def uninstall_command(
    *,
    output: Output,
    kubeconfig: str | None,
    namespace: str,
    files: tuple[str, ...],
    assignments: tuple[str, ...],
    crds: bool,
    yes: bool,
) -> int:
    """Remove server, agents and their rights from a cluster; keys, locations and backups stay."""
    from longshore.install.apply import plan_removal, remove
    from longshore.install.values import merged
    from longshore.kube.client import KubeClient

    values = merged(*(_read(name) for name in files), *map(_assigned, assignments))
    planned = plan_removal(values, namespace=namespace, definitions=crds)
    if crds and not yes:
        click.confirm(
            "Remove the custom resource definitions, Velero's too, and with them every record of a backup in this cluster?",
            abort=True,
            err=True,
        )
    removed = 0

    def told(what: str, obj: dict[str, Any]) -> None:
        nonlocal removed
        removed += 1
        _say(output, what, obj)

    with KubeClient.connect(kubeconfig, user_agent="longshore-uninstall") as client:
        remove(client, planned, namespace=namespace, told=told)
    output.note(
        f"kept: namespace {namespace} and what is in it, the keys of repositories (Secret longshore-repo-credentials) among it"
    )
    if folder := values.agent.cache_host_path:
        output.note(f"left on each node: the agent's cache, {folder}/{namespace}; nothing is lost with it")
    output.note(
        f"next: export the key (longshore repo key export), then kubectl delete namespace {namespace} if it is to go"
    )
    output.summary({"removed": removed, "exit_code": 0}, [])
    return 0


def _show(values: Any, *, namespace: str, form: str) -> int:
    import json

    from longshore.install.release import dump, objects

    made = objects(values, namespace=namespace)
    text = (
        dump(made)
        if form == "yaml"
        else json.dumps({"apiVersion": "v1", "kind": "List", "items": made}, indent=2, ensure_ascii=False)
    )
    click.echo(text.rstrip("\n"))
    return 0


def _install(output: Output, values: Any, *, kubeconfig: str | None, namespace: str, dry_run: bool) -> int:
    from longshore.install.apply import apply
    from longshore.kube.client import KubeClient

    counts = {"applied": 0, "removed": 0, "not_judged": 0}

    def told(what: str, obj: dict[str, Any]) -> None:
        counts[what.replace(" ", "_")] += 1
        _say(output, what, obj)

    with KubeClient.connect(kubeconfig, user_agent="longshore-install") as client:
        apply(client, values, namespace=namespace, told=told, dry_run=dry_run)
    if counts["not_judged"]:
        output.note("not judged: what lies in a namespace or is of a kind that only a real install makes")
    if not dry_run:
        if not values.location.enabled:
            output.note("next: make a BackupStorageLocation; backups have no place to go yet")
        output.note(f"next: see whether all is well with longshore status -n {namespace}")
    output.summary({**counts, "dry_run": dry_run, "exit_code": 0}, [])
    return 0


def _say(output: Output, what: str, obj: dict[str, Any]) -> None:
    metadata = obj["metadata"]
    place = metadata.get("namespace", "")
    output.item({"event": what, "kind": obj["kind"], "name": metadata["name"], "namespace": place})
    output.note(f"{what}: {obj['kind']} {place + '/' if place else ''}{metadata['name']}")


def _flags(
    *,
    image: str | None,
    provider: str | None,
    bucket: str | None,
    prefix: str | None,
    config: str | None,
    secret_file: str | None,
    agent_only: bool,
) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if image:
        made["image"] = _image(image)
    location: dict[str, Any] = {}
    if provider:
        location["provider"] = provider
    if bucket:
        location["bucket"] = bucket
    if prefix:
        location["prefix"] = prefix
    if config:
        location["config"] = dict(_pair(one, "--backup-location-config") for one in config.split(","))
    if location:
        made["location"] = {"enabled": True, **location}
    if secret_file:
        try:
            text = Path(secret_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as err:
            raise UsageError(f"the file cannot be read as text: file={secret_file}") from err
        made["credentials"] = {"secretContents": text}
    if agent_only:
        made["server"] = {"enabled": False}
    return made


def _image(text: str) -> dict[str, str]:
    if "@" in text:
        name, _, digest = text.partition("@")
        return {"repository": name, "digest": digest}
    name, colon, tag = text.rpartition(":")
    # A colon before the last slash is a registry's port.
    return {"repository": name, "tag": tag} if colon and "/" not in tag else {"repository": text}


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"not written as name=value: option={option}, text={text!r}")
    return name, value


def _assigned(text: str) -> dict[str, Any]:
    """Read `a.b=value` as the mapping that it stands for; the value is read as YAML."""
    import yaml

    name, value = _pair(text, "--set")
    try:
        found: Any = yaml.safe_load(value)
    except yaml.YAMLError as err:
        raise UsageError(f"the value is not YAML: option=--set, text={text!r}") from err
    if found is None:
        found = ""
    for part in reversed(name.split(".")):
        found = {part: found}
    assert isinstance(found, dict)
    return found


def _read(name: str) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(Path(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as err:
        raise UsageError(f"the settings cannot be read: file={name}") from err
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise UsageError(f"the settings are no mapping: file={name}", "write them as values.yaml does")
    return found
