"""Shared by every test: one thread each (xdist runs two), and where the development data lies."""

import gc
import os
import signal
import threading
from pathlib import Path

import pytest
import torch

from darkroom.ops import speeds

torch.set_num_threads(1)
os.environ.setdefault("HF_HUB_OFFLINE", "1")
if threading.current_thread() is threading.main_thread():
    # nohup and shells' background jobs ignore Ctrl-C, and programs that tests start inherit that
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Plain(speeds.Speeds):
    """Nothing is timed: every operation takes its plain row."""

    def quickest(self, operation, shape, rows):
        return next(iter(rows))


speeds.here = Plain  # pyright: ignore[reportAttributeAccessIssue]


def pytest_collection_finish() -> None:
    """What has been imported stays: collections of garbage need not look through it again."""
    gc.collect()
    gc.freeze()


DATA = Path(os.environ.get("DARKROOM_DATA", Path(__file__).parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def data() -> Path:
    """The development data; tests that need it are skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"no development data at {DATA}")
    return DATA
