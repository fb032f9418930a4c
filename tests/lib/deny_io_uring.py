#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs a command under a seccomp filter in which io_uring_setup fails with EPERM, as container
profiles do. Needs CAP_SYS_ADMIN (root), so that set-user-ID programs below still work."""
import ctypes
import errno
import os
import struct
import sys

NR_IO_URING_SETUP = 425  # the same on every architecture

BPF_LD_W_ABS = 0x20
BPF_JMP_JEQ_K = 0x15
BPF_RET_K = 0x06
SECCOMP_RET_ERRNO = 0x00050000
SECCOMP_RET_ALLOW = 0x7FFF0000
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2


def install():
    """Puts the filter on this process and all it starts."""
    program = [
        (BPF_LD_W_ABS, 0, 0, 0),  # the number of the system call
        (BPF_JMP_JEQ_K, 0, 1, NR_IO_URING_SETUP),
        (BPF_RET_K, 0, 0, SECCOMP_RET_ERRNO | errno.EPERM),
        (BPF_RET_K, 0, 0, SECCOMP_RET_ALLOW),
    ]
    code = b"".join(struct.pack("HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code)

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    libc = ctypes.CDLL(None, use_errno=True)
    filled = Program(len(program), ctypes.cast(buffer, ctypes.c_void_p).value)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filled), 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot install the seccomp filter (root is needed)")


if __name__ == "__main__":
    install()
    os.execvp(sys.argv[1], sys.argv[1:])
