"""The upkeep of the cluster's repositories by schedule: when is a run due, where does it run, what came of it.

Two operations: *maintenance* frees what no snapshot needs (`repo prune` without a policy), *verification* reads the newest snapshot of each volume back.

Rooms: `ledger` (what is remembered of runs, and when one is due), `settings` (Velero's config map for maintenance Jobs, and ours in it), `operation` (what a
run does, wherever it runs), `runs` (what is told of a run), `jobs` (runs as Kubernetes Jobs, made by `template`), `local` (runs on a thread of the server),
`controller` (decides and records) with `shown` (how it stands in the object) and `shared` (what the controllers of both kinds share).
"""
