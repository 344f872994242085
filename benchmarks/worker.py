"""One contender of ``run.py`` in a process of its own: does what each line of stdin names.

python benchmarks/worker.py CONTENDER FP32 FP16 SIDE WIDTH STEPS THREADS

A line is a task and, after a tab, the file for its result; the answer is wall and CPU seconds.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np


def main() -> None:
    name = sys.argv[1]
    folders = dict(zip(("fp32", "fp16"), map(Path, sys.argv[2:4]), strict=True))
    side, width, steps, threads = map(int, sys.argv[4:8])
    kind, _, how = name.partition(", ")
    if how == "plain":
        os.environ["DARKROOM_ACCELERATE"] = "0"
    import torch

    torch.set_num_threads(threads)
    import contenders

    if how == "memory kept":
        from darkroom.acceleration import keep_freed_memory

        if not keep_freed_memory():
            raise SystemExit("only glibc can be told to keep freed memory")
    opens, inputs = contenders.CONTENDERS[kind], contenders.Inputs(side, width)
    contender = None
    for line in sys.stdin:
        task, file = line.rstrip("\n").split("\t")
        load, _, rest = task.partition(" ")
        if load != "load" and contender is None:
            contender = opens(folders["fp32"])
        began = time.perf_counter(), time.process_time()
        if load == "load":
            folder, _, touched = rest.partition(" ")
            opened = opens(folders[folder])
            if touched:
                contenders.read_all(opened)
            del opened
        else:
            result = contenders.job(contender, task, inputs, steps)
        spent = time.perf_counter() - began[0], time.process_time() - began[1]
        if file and load != "load":
            np.save(file, result)
        print(*spent, flush=True)


if __name__ == "__main__":
    main()
