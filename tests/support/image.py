"""The image for tests: made as `make image` makes it, but with the extension that `make build` has built.

`make image` builds the extension once more with the machine's paths taken out, which takes minutes. `LONGSHORE_TEST_WHEEL` names a wheel to take instead.
Where the mirror has dropped a pinned version, and only then, the image is made from what the mirror has, with a warning that says to move the pins: what is
tested does not depend on the version.
"""

import dataclasses
import os
import subprocess
import sys
import warnings
from pathlib import Path

from scripts.image import assembly
from scripts.image.debian import PinGoneError

__all__ = ["make_image", "plan_in"]


def plan_in(target: Path, *, scratch: Path) -> assembly.Plan:
    """Say what to build into `target`, with a wheel that is built in `scratch`."""
    plan = assembly.Plan(target=target, wheel=_wheel(scratch))
    plan.target.mkdir(parents=True, exist_ok=True)
    # The helper is built once a clone, not once a session.
    shared = assembly.ROOT / "target" / "image" / "cargo"
    shared.mkdir(parents=True, exist_ok=True)
    if not (plan.target / "cargo").is_symlink():
        (plan.target / "cargo").symlink_to(shared)
    return plan


def make_image(plan: assembly.Plan) -> tuple[assembly.Plan, str]:
    """Make the image; gives the plan that could be followed, and the digest.

    Raises:
        ImageError: it cannot be made here.
    """
    try:
        return plan, assembly.make(plan)
    except PinGoneError as err:
        warnings.warn(
            f"the image is made from unpinned packages, `make image-lock` moves the pins: {err}", stacklevel=1
        )
        plan = dataclasses.replace(plan, is_current=True)
        return plan, assembly.make(plan)


def _wheel(target: Path) -> Path:
    if given := os.environ.get("LONGSHORE_TEST_WHEEL"):
        return Path(given)
    binaries = Path(sys.executable).parent
    subprocess.run(
        [binaries / "maturin", "build", "--release", "--locked", "--quiet", f"--out={target}"],
        cwd=assembly.ROOT,
        env={**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "PYO3_PYTHON": sys.executable},
        check=True,
    )
    (wheel,) = target.glob("*.whl")
    return wheel
