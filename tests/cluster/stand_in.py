"""What a cluster does beside its API server, in one small process: it binds pods to the one node, lays out their volumes, runs their commands, writes statuses.

    python -m tests.cluster.stand_in KUBECONFIG FOLDER LONGSHORE

Where no kubelet runs, whoever follows a guide still has to see pods come up. DaemonSets and Deployments get a pod, and DaemonSets the revisions that
`kubectl rollout undo` reads. A container whose image is called longshore runs the program that is named here, one that starts `sh` runs that, both with their
mounts' paths replaced by folders of this machine and with a token of their account that is bound to the pod, as a kubelet has it. Any other only waits.

Promises: its children die with it. What a container printed lies in FOLDER/logs.

What it is not: a kubelet. No image, no user, no limit, no probe; a container that ends is not started again. Volumes are emptyDirs, Secrets, the node's
folder of pods, and claims that are bound already.
"""

import base64
import contextlib
import hashlib
import json
import os
import re
import secrets
import shlex
import shutil
import sys
import time
from pathlib import Path

from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from tests.support.pki import write_private
from tests.support.processes import ChildProcess

NODE = "node-1"
REVISION = "controller-revision-hash"
TICK_SECONDS = 0.1
NOW = "2026-01-01T00:00:00Z"


class Pod:
    """One pod that is bound here: its folders, and the container that runs now."""

    def __init__(self, node, pod):
        self.node, self.name, self.namespace = node, pod["metadata"]["name"], pod["metadata"]["namespace"]
        self.uid, self.spec = pod["metadata"]["uid"], pod["spec"]
        self.inits = self.spec.get("initContainers", [])
        self.mains = self.spec["containers"]
        self.done = 0
        """Init containers that ended."""
        self.processes = {}
        self.kubeconfig = None
        self.said = None
        self.folders = {one["name"]: self._folder(one) for one in self.spec.get("volumes", [])}

    def _folder(self, volume):
        volumes = self.node.pods_root / self.uid / "volumes"
        match volume:
            case {"hostPath": {"path": path}}:
                if path.rstrip("/").endswith("/pods"):
                    return self.node.pods_root
                # Of the machine nothing is handed in: each node's own folders begin empty, and outlive the pod.
                made = self.node.host / path.lstrip("/")
                made.mkdir(parents=True, exist_ok=True)
                return made
            case {"persistentVolumeClaim": {"claimName": claim}}:
                bound = self.node.core.read_namespaced_persistent_volume_claim(claim, self.namespace)
                made = volumes / "kubernetes.io~local-volume" / bound.spec.volume_name
            case {"secret": {"secretName": secret}}:
                made = volumes / "kubernetes.io~secret" / volume["name"]
                made.mkdir(parents=True)
                for name, value in (self.node.core.read_namespaced_secret(secret, self.namespace).data or {}).items():
                    (made / name).write_bytes(base64.b64decode(value))
                return made
            case {"emptyDir": _}:
                made = volumes / "kubernetes.io~empty-dir" / volume["name"]
            case _:
                return None
        made.mkdir(parents=True)
        return made

    def step(self):
        """Start what is due and tell the server."""
        for one in self.inits[self.done : self.done + 1]:
            started = self.processes.get(one["name"]) or self._start(one)
            if not started.alive:
                assert started.exit_code == 0, f"an init container failed: pod={self.name}, log={started.log_path}"
                self.done += 1
        if self.done == len(self.inits):
            for one in self.mains:
                if one["name"] not in self.processes:
                    self._start(one)
        status = self._status()
        if status != self.said:
            self.node.core.patch_namespaced_pod_status(self.name, self.namespace, {"status": status})
            self.said = status

    def _start(self, container):
        mounts = {
            one["mountPath"]: str(self.folders[one["name"]])
            for one in container.get("volumeMounts", [])
            if self.folders.get(one["name"])
        }

        # In one go, the longest first: what takes a path's place may hold another's, as everything below /tmp does.
        paths = re.compile("|".join(map(re.escape, sorted(mounts, key=len, reverse=True))) or "(?!)")

        def here(text):
            return paths.sub(lambda found: mounts[found[0]], text)

        fields = {"spec.nodeName": NODE, "metadata.namespace": self.namespace, "metadata.name": self.name}
        env = {"AWS_EC2_METADATA_DISABLED": "true", "LONGSHORE_METRICS_ADDRESS": "127.0.0.1:0"}
        for one in container.get("env", []):
            field = (one.get("valueFrom") or {}).get("fieldRef")
            env[one["name"]] = fields[field["fieldPath"]] if field else here(one.get("value", ""))
        if "/host_pods" in mounts:
            env["LONGSHORE_HOST_PODS_ROOT"] = mounts["/host_pods"]
        words = [here(str(one)) for one in (*container.get("command", []), *container.get("args", []))]
        if "longshore" in container["image"]:
            words = [self.node.program, *words[1:]]
            env["KUBECONFIG"] = str(self._kubeconfig())
        elif words[:1] != ["sh"]:
            words = ["sleep", "infinity"]
        log = self.node.logs / f"{self.namespace}-{self.name}-{container['name']}.log"
        log.write_text(f"{shlex.join(map(str, words))}\n")
        started = ChildProcess(self.name, words, log_path=log, env=env)
        self.processes[container["name"]] = started
        return started

    def _kubeconfig(self):
        if self.kubeconfig is None:
            bound = {"apiVersion": "v1", "kind": "Pod", "name": self.name, "uid": self.uid}
            request = {"spec": {"expirationSeconds": 3600, "boundObjectRef": bound}}
            account = self.spec["serviceAccountName"]
            made = self.node.core.create_namespaced_service_account_token(account, self.namespace, request)
            found = json.loads(self.node.kubeconfig.read_text())
            found["users"][0]["user"] = {"token": made.status.token}
            self.kubeconfig = self.node.logs / f"{self.uid}.kubeconfig"
            write_private(self.kubeconfig, json.dumps(found).encode())
        return self.kubeconfig

    def _status(self):
        def told(container, *, ended=False):
            process = self.processes.get(container["name"])
            if process is None:
                state = {"waiting": {"reason": "PodInitializing"}}
            elif process.alive:
                state = {"running": {"startedAt": NOW}}
            else:
                state = {"terminated": {"exitCode": process.exit_code, "startedAt": NOW, "finishedAt": NOW}}
            return {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": "running" in state or (ended and "terminated" in state),
                "restartCount": 0,
                "state": state,
            }

        inits = [told(one, ended=True) for one in self.inits]
        mains = [told(one) for one in self.mains]
        ready = all(one["ready"] for one in mains)
        codes = [one["state"]["terminated"]["exitCode"] for one in mains if "terminated" in one["state"]]
        phase = "Running" if self.done == len(self.inits) else "Pending"
        if len(codes) == len(mains):
            phase = "Failed" if any(codes) else "Succeeded"
        conditions = [
            {"type": kind, "status": str(holds), "lastTransitionTime": NOW}
            for kind, holds in (("PodScheduled", True), ("Initialized", phase != "Pending"), ("Ready", ready))
        ]
        return {
            "phase": phase,
            "conditions": conditions,
            "initContainerStatuses": inits,
            "containerStatuses": mains,
            "startTime": NOW,
        }

    @property
    def ready(self):
        return bool(self.said) and all(one["ready"] for one in self.said["containerStatuses"])

    def end(self):
        """Stop it, and take its folder away, as a kubelet does before the object goes."""
        for one in self.processes.values():
            one.stop(grace_seconds=20)
        shutil.rmtree(self.node.pods_root / self.uid, ignore_errors=True)


class Node:
    """The one node, and what keeps workloads at their number."""

    def __init__(self, kubeconfig, folder, program):
        self.kubeconfig, self.program = kubeconfig, program
        self.pods_root, self.logs, self.host = folder / "pods", folder / "logs", folder / "host"
        for one in (self.pods_root, self.logs, self.host):
            one.mkdir(parents=True, exist_ok=True)
        self.api = config.new_client_from_config(str(kubeconfig))
        self.core, self.apps = client.CoreV1Api(self.api), client.AppsV1Api(self.api)
        self.pods = {}
        with contextlib.suppress(ApiException):
            self.core.create_node({"metadata": {"name": NODE, "labels": {"kubernetes.io/os": "linux"}}})

    def plain(self, found):
        return [self.api.sanitize_for_serialization(one) for one in found.items]

    def turn(self):
        """Look at everything once."""
        pods = self.plain(self.core.list_pod_for_all_namespaces())
        self.workloads(pods)
        for one in pods:
            metadata = one["metadata"]
            if metadata.get("deletionTimestamp"):
                if mine := self.pods.pop(metadata["uid"], None):
                    mine.end()
                self.core.delete_namespaced_pod(metadata["name"], metadata["namespace"], grace_period_seconds=0)
            elif "nodeName" not in one["spec"]:
                target = {"apiVersion": "v1", "kind": "Node", "name": NODE}
                body = {"metadata": {"name": metadata["name"]}, "target": target}
                # The answer is a Status, which this client takes for a Binding unless it is left alone.
                self.core.create_namespaced_binding(metadata["namespace"], body, _preload_content=False)
            else:
                if metadata["uid"] not in self.pods:
                    self.pods[metadata["uid"]] = Pod(self, one)
                self.pods[metadata["uid"]].step()
        for uid in set(self.pods) - {one["metadata"]["uid"] for one in pods}:
            self.pods.pop(uid).end()

    def workloads(self, pods):
        found = [("DaemonSet", one) for one in self.plain(self.apps.list_daemon_set_for_all_namespaces())]
        found += [("Deployment", one) for one in self.plain(self.apps.list_deployment_for_all_namespaces())]
        owners = {one["metadata"]["uid"] for _, one in found}
        for one in pods:
            for owner in one["metadata"].get("ownerReferences", []):
                if owner["kind"] in {"DaemonSet", "Deployment"} and owner["uid"] not in owners:
                    self.delete(one)
        for kind, one in found:
            self.keep(kind, one, [pod for pod in pods if one["metadata"]["uid"] in self.owners(pod)])

    @staticmethod
    def owners(pod):
        return {owner["uid"] for owner in pod["metadata"].get("ownerReferences", [])}

    def delete(self, pod):
        if not pod["metadata"].get("deletionTimestamp"):
            self.core.delete_namespaced_pod(pod["metadata"]["name"], pod["metadata"]["namespace"])

    def keep(self, kind, owner, pods):
        """One pod of the newest template, after those of older ones have gone."""
        metadata, template = owner["metadata"], owner["spec"]["template"]
        mark = hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]
        reference = {"apiVersion": "apps/v1", "kind": kind, "name": metadata["name"], "uid": metadata["uid"]}
        new = [one for one in pods if one["metadata"]["labels"].get(REVISION) == mark]
        for one in pods:
            if one not in new:
                self.delete(one)
        if not pods:
            middle = "" if kind == "DaemonSet" else f"-{mark}"
            self.core.create_namespaced_pod(
                metadata["namespace"],
                {
                    "metadata": {
                        # A name with a digit, as those of a cluster mostly are.
                        "name": f"{metadata['name']}{middle}-{secrets.token_hex(2)}7",
                        "labels": {**template["metadata"].get("labels", {}), REVISION: mark},
                        "annotations": template["metadata"].get("annotations", {}),
                        "ownerReferences": [{**reference, "controller": True}],
                    },
                    "spec": template["spec"],
                },
            )
        ready = sum(self.pods[one["metadata"]["uid"]].ready for one in new if one["metadata"]["uid"] in self.pods)
        status = {"observedGeneration": metadata["generation"]}
        if kind == "DaemonSet":
            self.revise(owner, reference, template, mark)
            status |= {"desiredNumberScheduled": 1, "currentNumberScheduled": len(pods), "numberMisscheduled": 0}
            status |= {"numberReady": ready, "numberAvailable": ready, "updatedNumberScheduled": len(new)}
            write = self.apps.patch_namespaced_daemon_set_status
        else:
            status |= {"replicas": len(pods), "readyReplicas": ready, "availableReplicas": ready}
            status |= {"updatedReplicas": len(new)}
            write = self.apps.patch_namespaced_deployment_status
        if any((owner.get("status") or {}).get(name, 0) != value for name, value in status.items()):
            write(metadata["name"], metadata["namespace"], {"status": status})

    def revise(self, owner, reference, template, mark):
        metadata = owner["metadata"]
        there = self.plain(self.apps.list_namespaced_controller_revision(metadata["namespace"]))
        there = [one for one in there if metadata["uid"] in self.owners(one)]
        newest = max(there, key=lambda one: one["revision"], default=None)
        name = f"{metadata['name']}-{mark}"
        if newest and newest["metadata"]["name"] == name:
            return
        number = newest["revision"] + 1 if newest else 1
        if name in {one["metadata"]["name"] for one in there}:
            # Its data may not change, not even in the order of their fields, as they do in whatever goes through this client.
            self.apps.delete_namespaced_controller_revision(name, metadata["namespace"])
        labels = {**owner["spec"]["selector"]["matchLabels"], REVISION: mark}
        body = {
            "metadata": {"name": name, "labels": labels, "ownerReferences": [{**reference, "controller": True}]},
            "data": {"spec": {"template": {**template, "$patch": "replace"}}},
            "revision": number,
        }
        self.apps.create_namespaced_controller_revision(metadata["namespace"], body)


def main():
    kubeconfig, folder, program = map(Path, sys.argv[1:])
    node = Node(kubeconfig, folder, program)
    while os.getppid() != 1:
        try:
            node.turn()
        except ApiException as err:
            # What was just looked at has changed: the next turn sees it.
            if err.status not in {404, 409}:
                raise
        time.sleep(TICK_SECONDS)


if __name__ == "__main__":
    main()
