"""In order, errors at their step, and no thread left however the loop ends."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from darkroom.training.prefetch import prefetch


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("prefetch")]


@pytest.mark.parametrize(("ahead", "workers"), [(0, 1), (1, 1), (2, 2), (8, 3), (3, 8)])
def test_in_order_and_complete(ahead, workers):
    def load(step):
        time.sleep(0.002 * (step % 3))
        return step * step

    steps = range(5, 25)
    assert list(prefetch(load, steps, ahead, workers)) == [s * s for s in steps]
    assert not threads()
    assert list(prefetch(load, range(0), ahead, workers)) == []


def test_at_most_so_many_are_begun():
    begun = []
    batches = prefetch(begun.append, range(100), ahead=3)
    for done in range(1, 6):
        next(batches)
        time.sleep(0.02)
        assert done <= len(begun) <= done + 3
    batches.close()
    assert len(begun) <= 8


def test_an_error_is_raised_at_its_step():
    def load(step):
        if step == 4:
            raise OSError("step 4")
        return step

    seen = []
    with pytest.raises(OSError, match="step 4"):
        for batch in prefetch(load, range(10), 3, 2):
            seen.append(batch)
    assert seen == [0, 1, 2, 3]
    assert not threads()


def test_closing_and_leaving_end_the_threads():
    batches = prefetch(lambda step: time.sleep(0.01) or step, range(1000), 4, 2)
    assert [next(batches), next(batches)] == [0, 1]
    assert threads()
    batches.close()
    assert not threads()
    with pytest.raises(ZeroDivisionError):
        for _ in prefetch(lambda step: step, range(1000), 4, 2):
            1 / 0  # noqa: B018
    del batches
    deadline = time.monotonic() + 5
    while threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not threads()


def test_nothing_starts_before_it_is_asked():
    prefetch(lambda step: 1 / 0, range(10))
    assert not threads()
    for wrong in ({"ahead": -1}, {"workers": 0}):
        with pytest.raises(ValueError, match="must be at least"):
            prefetch(lambda step: step, range(3), **wrong)


def test_loading_overlaps_with_the_consumer():
    """While the consumer holds a step, the next one is being loaded: it waits for that here."""
    begun = [threading.Event() for _ in range(5)]

    def load(step):
        begun[step].set()
        return step

    for step in prefetch(load, range(5), 2, 2):
        assert step == 4 or begun[step + 1].wait(60)


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_ends_the_process():
    code = (
        "import time\nfrom darkroom.training.prefetch import prefetch\n"
        "def load(step): time.sleep(0.05); return step\n"
        "for batch in prefetch(load, range(10**6), 4, 2): print(batch, flush=True)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "0\n"
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=20)
    assert child.returncode != 0
    assert "KeyboardInterrupt" in err
