"""The images of the test's node, as archives in a folder: ours, and the one that holds a pod's namespaces.

    python -m tests.node.images FOLDER

Run before the room is entered, for in it there is no network to take Debian's packages from. Exit code 1 with the reason on stderr when they cannot be made.
"""

import gzip
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.image.oci import Image, Layer, write_archive
from scripts.image.tree import File, ImageError, Tree

from tests.support.image import make_image, plan_in

__all__ = ["PAUSE", "archives", "main"]

PAUSE = "node.test/pause:1"
_SOURCE = Path(__file__).with_name("pause.c")


def main(folder: Path) -> int:
    """Make both; gives the exit code."""
    try:
        with tempfile.TemporaryDirectory() as scratch:
            plan, digest = make_image(plan_in(folder, scratch=Path(scratch)))
            print(f"{plan.archive_path}\n{digest}")
            _make_pause(folder / "pause.oci.tar", Path(scratch), architecture=plan.architecture)
    except (ImageError, OSError, subprocess.CalledProcessError) as err:
        print(f"error: the images of the node cannot be made: {err}", file=sys.stderr)
        return 1
    return 0


def archives(folder: Path) -> list[Path]:
    """List what `main` has made."""
    return sorted(folder.glob("*.oci.tar"))


def _make_pause(archive: Path, scratch: Path, *, architecture: str) -> None:
    program = scratch / "pause"
    subprocess.run(["cc", "-Os", "-static", "-s", "-o", program, _SOURCE], check=True)
    tree = Tree()
    tree.add("pause", File(program.read_bytes(), 0o755))
    image = Image(
        name=PAUSE,
        architecture=architecture,
        created=0,
        layers=[Layer(tree, "holds the namespaces of a pod")],
        config={"Entrypoint": ["/pause"], "User": "65535:65535", "WorkingDir": "/"},
    )
    write_archive(image, archive, gzip=gzip.compress)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
