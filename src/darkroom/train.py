"""Train on several processes: ``torchrun --nproc-per-node 2 -m darkroom.train CONFIG.toml``.

Without torchrun it is ``darkroom train``.
"""

import os
import sys


def main() -> None:
    """Join the others, train, part; only the first process writes to stdout."""
    from darkroom.app.cli import main as run

    sys.argv[1:] = ["train", *sys.argv[1:]]
    if not {"RANK", "LOCAL_RANK", "WORLD_SIZE"} & os.environ.keys():
        return run()
    join()
    try:
        run()
    except SystemExit as end:
        if not end.code:
            part()
        raise


def join() -> None:
    """Start the process group, or say in one line why not."""
    from darkroom.app.outcome import Answer, report
    from darkroom.errors import DarkroomError
    from darkroom.training import distributed

    try:
        distributed.start()
    except DarkroomError as error:
        sys.exit(report(error, Answer()))
    if not distributed.first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives


def part() -> None:
    """Leave the process group."""
    from darkroom.training import distributed

    distributed.stop()


if __name__ == "__main__":
    main()
