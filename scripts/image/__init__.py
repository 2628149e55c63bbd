"""Makes the container image: Debian's Python, the pinned packages, our wheel and the restore-wait helper, as an OCI archive, without a container daemon.

    python -m scripts.image build      what `make image` runs: target/image/longshore-VERSION-ARCH.oci.tar
    python -m scripts.image twice      two builds of the last commit that share nothing compiled, compared
    python -m scripts.image folder DIR the same files below a folder; daemonset/image/Dockerfile copies them from there
    python -m scripts.image lock       pin the Debian packages that the mirror has today

Promises
- Whoever builds a commit with the same toolchain gets the same digest, in whatever folder: files are sorted, owned by root, dated by the commit; paths of
  the machine are taken out of the extension; bytecode and compression are made by the image's own interpreter and so depend on pins alone.
- What goes in is pinned by SHA-256: Debian packages in daemonset/image/debian-ARCH.lock, Python packages in requirements-runtime.txt, crates in Cargo.lock.
- Nothing runs as root, nothing outside `target/image` and the caches is written, and no maintainer script of a package is run.
- The image has no shell, no package manager and no setuid file, and names all that is in it in an SBOM.

Rooms, each knowing only those before it: `tree` (files in memory) → `oci` (layers and the archive) | `debian` | `interpreter` | `packages` | `crates` →
`ours` | `system` | `sbom` → `assembly` (which files make which layer) → `__main__`; `twice` calls the command alone. It does not know what the program
does, nor how the image is run: that stands in longshore.install.
"""
