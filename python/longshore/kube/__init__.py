"""Talking to a Kubernetes API server: client, informer, events, leases, and an in-process server to test against.

What may enter: what is true for every kind of object. Objects are plain JSON dictionaries here; models live in `longshore.api`. This is the only room that
imports the `kubernetes` package, and only when a client is made (importing it costs a quarter of a second and 44 MB).

Where to start: :mod:`longshore.kube.resource` names kinds, :mod:`longshore.kube.client` does one request at a time, :mod:`longshore.kube.informer` keeps a
local copy of a kind up to date, :mod:`longshore.kube.leases` and :mod:`longshore.kube.events` use the client, :mod:`longshore.kube.fake` is the server.

It does not know queues, controllers, backups or repositories.
"""
