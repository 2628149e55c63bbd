"""What moves our custom resources from phase to phase. One file a kind, phases as tables.

What may enter: reading an object, deciding, writing its status, and starting, watching and stopping jobs of the data path. What may not: bytes of volumes,
the store's protocols, threads that nobody joins.

Start with :mod:`longshore.controllers.pod_volume`, the table that PodVolumeBackup and PodVolumeRestore share, then
:mod:`longshore.controllers.pod_volume_backup` and :mod:`longshore.controllers.pod_volume_restore`. :mod:`longshore.controllers.tasks` is the work of one
object on a thread of its own, :mod:`longshore.controllers.phases` what is written into a status, :mod:`longshore.controllers.claims` who may write it.
:mod:`longshore.controllers.ports` says what is needed of the data path, :mod:`longshore.controllers.engine` is the data path in that shape,
:mod:`longshore.controllers.repositories` gives open repositories for a location, :mod:`longshore.controllers.repository_keys` their keys.
:mod:`longshore.controllers.backup_repository` and :mod:`longshore.controllers.backup_storage_location` run in the server.
"""
