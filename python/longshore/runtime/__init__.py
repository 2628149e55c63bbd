"""How controllers run: a rate-limited queue, workers, start and stop. Knows nothing of backup.

What may enter: what every controller needs in the same way. Where to start: :mod:`longshore.runtime.controller` is the loop, :mod:`longshore.runtime.queue`
decides what is worked on next, :mod:`longshore.runtime.manager` starts and stops all of it and answers the kubelet's probes.
"""
