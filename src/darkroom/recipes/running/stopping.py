"""Stopping between two steps, so that what is saved is whole."""

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import torch

from darkroom.training import distributed

PATIENCE = 4.0  # seconds that a step may go on after SIGTERM


class Stop:
    """Makes Ctrl-C and SIGTERM wait for the end of the step under way; a second one does not wait.

    SIGTERM comes a second time by itself if the step takes longer than ``PATIENCE``: whoever sends
    it expects an end soon. Of several processes, all stop after the same step.
    """

    def __init__(self) -> None:
        self.stepping = False  # set by the caller
        self.asked: int | None = None
        self.before: dict[int, Callable[..., Any]] = {}
        self.again: threading.Timer | None = None

    def listen(self) -> None:
        """Begin; does nothing outside the main thread, where signals never arrive."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if callable(handler := signal.getsignal(number)):
                    self.before[number] = handler
                    signal.signal(number, self._heard)

    def end(self) -> None:
        """Give the signals back."""
        self._wait_no_more()
        for number, handler in self.before.items():
            if signal.getsignal(number) == self._heard:
                signal.signal(number, handler)
        self.before = {}

    def _heard(self, number: int, frame: Any) -> None:
        again, self.asked = self.asked is not None, number
        if again or not (self.stepping or distributed.running()):
            self.before[number](number, frame)
        elif number == signal.SIGTERM and not distributed.running():
            self.again = threading.Timer(PATIENCE, os.kill, (os.getpid(), number))
            self.again.daemon = True
            self.again.start()

    def _wait_no_more(self) -> None:
        if self.again is not None:
            self.again.cancel()

    def now(self, device: torch.device) -> bool:
        """Whether any process was asked to stop; all ask this after each step."""
        return distributed.any_of(self.asked is not None, device)

    def act(self) -> None:
        """Do what the signal does: raise KeyboardInterrupt, or what a handler of SIGTERM raises."""
        self._wait_no_more()
        handler = self.before.get(self.asked or signal.SIGINT)
        if handler is not None:
            handler(self.asked or signal.SIGINT, None)
        raise KeyboardInterrupt
