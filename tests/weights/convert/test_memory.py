"""Files of full size go through in the memory of a few tensors."""

import subprocess
import sys
from pathlib import Path

import pytest

from darkroom.models.autoencoder import SD_AUTOENCODER, Autoencoder
from darkroom.models.clip_text import CLIP_L, ClipTextModel
from darkroom.models.unet import SD15, UNet
from darkroom.weights.assemble import on_meta
from darkroom.weights.layouts import single_file
from weights.sparse import write_sparse

MEASURED = """
import sys, threading, time
from darkroom.weights.convert import Recipe, merge
def anonymous():
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines["RssAnon"].split()[0]) * 1024
peak, before, done = 0, anonymous(), threading.Event()
def watch():
    global peak
    while not done.wait(0.01):
        peak = max(peak, anonymous())
threading.Thread(target=watch, daemon=True).start()
for step in merge(sys.argv[1:3], sys.argv[3], Recipe(ratio=0.3)):
    pass
done.set()
print(step.total, peak - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux' own counts")
def test_merging_files_of_full_size(tmp_path):
    """2.1 GB each; memory that is not the files' own stays under 1 GB."""
    parts = {}
    kinds = (("unet", UNet, SD15), ("autoencoder", Autoencoder, SD_AUTOENCODER),
             ("text", ClipTextModel, CLIP_L))  # fmt: skip
    with on_meta():
        for name, kind, config in kinds:
            parts[name] = config, kind(config).state_dict()
    state = single_file.join(parts, single_file.SD1)
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    files = [write_sparse(tmp_path / f"{n}.safetensors", shapes) for n in "ab"]
    out = tmp_path / "out.safetensors"
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, (*files, out))], capture_output=True, text=True
    )
    out.unlink(missing_ok=True)
    assert done.returncode == 0, done.stderr
    total, peak = map(int, done.stdout.split())
    assert total > 2_000_000_000
    assert peak < 1_000_000_000, f"{peak:,} bytes"
