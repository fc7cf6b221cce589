"""Becomes another program: drops privileges, and has the kernel stop it when its parent dies.

Run as a script by `cli.embedded.service`, so that the parent, which has threads, needs no code
between fork and exec. Imports little: it is on the way of every start.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Exec `program`; the arguments are: parent's pid, signal, uid, gid (-1: stay), program..."""
    parent, signal_number, uid, gid = (int(number) for number in arguments[:4])
    program = arguments[4:]
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        # After the change of user, which clears it.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            sys.exit(1)
    try:
        os.execv(program[0], program)  # noqa: S606 - that is the point
    except OSError as error:
        print(f"FATAL: {program[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1:])
