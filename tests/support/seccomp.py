"""Compiles a seccomp profile, as container runtimes read it, into the program that the kernel runs.

The work is libseccomp's, as in the runtimes; this hands it the profile's rules. Promises: a name that no kernel knows is an error, an unknown action
or comparison too; conditions are kept. It does not load anything: `container` does.
"""

import ctypes
import errno
import json
import os
from pathlib import Path
from typing import Any

__all__ = ["SeccompMissingError", "compile_profile"]

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_COMPARISONS = {
    name: number
    for number, name in enumerate(
        (
            "SCMP_CMP_NE",
            "SCMP_CMP_LT",
            "SCMP_CMP_LE",
            "SCMP_CMP_EQ",
            "SCMP_CMP_GE",
            "SCMP_CMP_GT",
            "SCMP_CMP_MASKED_EQ",
        ),
        1,
    )
}


class SeccompMissingError(Exception):
    """The machine has no libseccomp."""


class _Comparison(ctypes.Structure):
    _fields_ = (("index", ctypes.c_uint), ("op", ctypes.c_int), ("one", ctypes.c_uint64), ("two", ctypes.c_uint64))


def _action(name: str, number: int) -> int:
    return {"SCMP_ACT_ALLOW": _ALLOW, "SCMP_ACT_ERRNO": _ERRNO | number}[name]


def compile_profile(profile: Path, target: Path) -> None:
    """Write the program of a profile for this processor.

    Raises:
        SeccompMissingError: there is no libseccomp.
        ValueError: the profile holds what is not understood.
    """
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError as err:
        raise SeccompMissingError("libseccomp.so.2 is not on this machine: install libseccomp2") from err
    library.seccomp_init.restype = ctypes.c_void_p
    said = json.loads(profile.read_text())
    if _NATIVE[os.uname().machine] not in {one["architecture"] for one in said["archMap"]}:
        raise ValueError("the profile is not for this processor")
    default = _action(said["defaultAction"], said.get("defaultErrnoRet", errno.EPERM))
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(default)))
    try:
        for rule in said["syscalls"]:
            for name in rule["names"]:
                _add(library, context, name, rule)
        with target.open("wb") as file:
            if library.seccomp_export_bpf(context, file.fileno()):
                raise ValueError("the profile cannot be compiled")
    finally:
        library.seccomp_release(context)


def _add(library: Any, context: ctypes.c_void_p, name: str, rule: dict[str, Any]) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number == -1:
        raise ValueError(f"no such system call: name={name}")
    conditions = rule.get("args", [])
    array = (_Comparison * len(conditions))(*[_condition(one) for one in conditions])
    action = ctypes.c_uint32(_action(rule["action"], rule.get("errnoRet", errno.EPERM)))
    answer = library.seccomp_rule_add_array(context, action, number, len(conditions), array)
    if answer:
        raise ValueError(f"a rule is refused: name={name}, error={os.strerror(-answer)}")


def _condition(said: dict[str, Any]) -> _Comparison:
    op = _COMPARISONS[said["op"]]
    # What is compared masked has the mask first.
    return _Comparison(said["index"], op, said["value"], said.get("valueTwo", 0))
