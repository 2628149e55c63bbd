"""What is installed in a cluster, held once.

Objects stand here as data with references to settings in them (:mod:`.template`). From the same data come `longshore install`, which puts the settings in,
the plain manifests for kustomize, and the Helm chart, in which the references become Helm's own. So no setting can mean one thing to one of them and another
thing to the next; a test asks all three for the same settings and compares.

Promises: the agent gets the rights listed in :mod:`.access` and no more; what is written into daemonset/ is made by `make manifests` alone; nothing that holds
data (Secrets, locations, definitions, the namespace) is removed unless it was named.

It does not know how server and agent work, only how they are started.
"""
