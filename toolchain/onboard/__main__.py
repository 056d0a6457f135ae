"""python -m toolchain.onboard worker | agent ROOT | keep FOLDER: which of its processes this is."""

from __future__ import annotations

import sys


def main(arguments: list[str]) -> int:
    # Only what the process needs is imported: on a small board every module costs tens of milliseconds.
    mode = arguments[0] if arguments else ""
    if mode == "worker":
        from .worker import main as run_worker

        return run_worker()
    if mode == "agent":
        from .agent import main as run_agent

        return run_agent(arguments[1])
    if mode == "keep":
        from .jobs import keep

        return keep(arguments[1])
    sys.stderr.write("worker, agent ROOT or keep FOLDER?\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
