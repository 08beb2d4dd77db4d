"""`python -m sentinel_core.leash PID COMMAND…`: become COMMAND, and get SIGTERM when process PID dies.

A supervisor that is killed (-9) cannot end its children. On Linux the kernel does it for us; elsewhere they live on.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>; survives execve


def main() -> None:
    """Replace this process by the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    hold(parent)
    os.execvp(command[0], command)


def hold(parent: int) -> None:
    """Get SIGTERM when our parent, or its thread that has started us, ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before we asked
            sys.exit(1)


if __name__ == "__main__":
    main()
