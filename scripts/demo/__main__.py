"""Starts the demo, and sees to it that however it ends no process is left and the exit code says what happened.

    SOURCE=/some/dir CLUSTER=1 python -m scripts.demo

`SOURCE` names a directory whose copy is used in place of a volume that the demo makes itself; `CLUSTER`, when not empty, asks for the real kube-apiserver
and etcd. `DEMO_SVG` names a file that gets a picture of the terminal at the end, `DEMO_DATA` a folder of its own to be used in place of demo-data/.

Exit codes: 0 every byte and attribute came back; 1 something differs or failed; 2 it was asked for something impossible; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.support.components import ComponentFailedError, ComponentMissingError, interrupt_on_sigterm

from longshore.errors import LongshoreError
from scripts.demo.folder import DemoError, Folder
from scripts.demo.screen import Screen
from scripts.demo.story import tell

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Run the demo.

    Returns:
        The exit code.
    """
    interrupt_on_sigterm()
    picture = os.environ.get("DEMO_SVG")
    screen = Screen(record=bool(picture))
    folder = Folder(Path(os.environ.get("DEMO_DATA") or ROOT / "demo-data"))
    source = os.environ.get("SOURCE") or None
    try:
        code = tell(screen, folder, source=Path(source) if source else None, real=bool(os.environ.get("CLUSTER")))
    except KeyboardInterrupt:
        screen.failure("interrupted", "every process that was started has ended; say make demo again")
        return 130
    except DemoError as err:
        screen.failure(err.message, err.next_step)
        return err.exit_code
    except LongshoreError as err:
        screen.failure(err.message, err.next_step or "")
        return 1
    except (ComponentFailedError, ComponentMissingError) as err:
        screen.failure(str(err), "")
        return 1
    if picture and code == 0:
        screen.save_picture(Path(picture), title="make demo")
    return code


if __name__ == "__main__":
    sys.exit(main())
