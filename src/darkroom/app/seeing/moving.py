"""Move files without ever replacing one."""

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path


def move(targets: Mapping[Path, Path]) -> None:
    """Move each file to its target, to another disk if need be; folders are made.

    Raises:
        FileExistsError: there is something at one of the targets; nothing has been moved.
        OSError: one cannot be moved; those before it have been.
    """
    for target in targets.values():
        if os.path.lexists(target):
            said = "is there already; nothing was moved"
            raise FileExistsError(errno.EEXIST, said, str(target))
    for path, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)
