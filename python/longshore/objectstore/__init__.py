"""The BackupStorageLocation's side: what its fields mean, whose credentials are used, and small reads and writes at the location.

What may enter: whatever an operator writes into a location, and the object store as the control plane sees it (is it there, what lies at its top, fetch or
put one small object). Bulk data never passes here: the data path in Rust has a store of its own and takes :class:`StoreSettings` and :class:`Credentials`.

Start with :mod:`longshore.objectstore.location` (a location becomes settings), then :mod:`longshore.objectstore.credentials` (Velero's order),
:mod:`longshore.objectstore.store` (what a store can do), :mod:`longshore.objectstore.aws` and :mod:`longshore.objectstore.filesystem` (the two of them),
:mod:`longshore.objectstore.opening` (the right one for a location).

It does not know repositories, keys, pods or clients of the API server: Secrets are read through a function that is handed in. botocore is imported
in `aws` and `credentials` only, and only when they are used.
"""
