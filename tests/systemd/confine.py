"""`python -m tests.systemd.confine COMMAND…`: filter the system calls as the unit does, then become the command."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import socket
import sys

from tests.systemd.unit import directives, system_calls

SCMP_ACT_ALLOW = 0x7FFF0000
SCMP_ACT_ERRNO = 0x00050000
SCMP_CMP_EQ = 4


class Comparison(ctypes.Structure):
    """libseccomp's scmp_arg_cmp."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("other", ctypes.c_uint64),
    )


def filter_system_calls() -> None:
    """All that the unit does not allow fail with EPERM; a socket of another family with EAFNOSUPPORT in systemd, here
    with EPERM too.
    """
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(SCMP_ACT_ERRNO | errno.EPERM)))
    allow = ctypes.c_uint32(SCMP_ACT_ALLOW)
    for name in system_calls() - {"socket", "unshare", "setns"}:  # the last two: RestrictNamespaces=
        if (number := seccomp.seccomp_syscall_resolve_name(name.encode())) >= 0:
            seccomp.seccomp_rule_add_array(context, allow, number, 0, None)
    number = seccomp.seccomp_syscall_resolve_name(b"socket")
    for family in directives()["RestrictAddressFamilies"][0].split():
        equal = Comparison(0, SCMP_CMP_EQ, getattr(socket, family), 0)
        seccomp.seccomp_rule_add_array(context, allow, number, 1, ctypes.byref(equal))
    if seccomp.seccomp_load(context):
        raise SystemExit("the kernel refuses the filter")


def main() -> None:
    """Apply, then exec."""
    os.umask(int(directives()["UMask"][0], 8))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    filter_system_calls()
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
