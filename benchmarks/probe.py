"""One job in a process of its own: prints its seconds and the most memory it ever held (JSON).

python benchmarks/probe.py CONTENDER TASK FOLDER SIDE WIDTH STEPS THREADS
"""

import json
import re
import sys
import time
from pathlib import Path


def peak() -> int:
    """Bytes: the high-water mark of what was resident, mapped files among it."""
    try:
        status = Path("/proc/self/status").read_text()
        return int(re.search(r"VmHWM:\s*(\d+)", status)[1]) * 1024
    except (OSError, TypeError):
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main() -> None:
    name, task, folder = sys.argv[1:4]
    side, width, steps, threads = map(int, sys.argv[4:8])
    import torch

    torch.set_num_threads(threads)
    import contenders

    if task == "import":
        if name == "diffusers":
            from diffusers import StableDiffusionPipeline  # noqa: F401
        else:
            import darkroom as dr

            for public in dr.__all__:
                getattr(dr, public)
        print(json.dumps({"peak": peak()}))
        return
    contender = contenders.CONTENDERS[name](Path(folder))
    wall, cpu = time.perf_counter(), time.process_time()
    if task.startswith("load"):
        contenders.read_all(contender)
    else:
        contenders.job(contender, task, contenders.Inputs(side, width), steps)
    seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    print(json.dumps({"peak": peak(), **seconds}))


if __name__ == "__main__":
    main()
