from pathlib import Path

from darkroom import machine


def test_this_machine_has_a_processor_and_memory():
    assert machine.processor()
    known = machine.memory()
    assert known is not None
    assert known.available is None or 0 < known.available <= known.total


def test_a_container_s_limit_counts_the_cache_as_free(tmp_path):
    for name, text in {
        "memory.max": "1000\n",
        "memory.current": "900\n",
        "memory.stat": "anon 500\ninactive_file 300\n",
    }.items():
        (tmp_path / name).write_text(text)
    assert machine._cgroup(tmp_path) == machine.Memory(1000, 400)
    (tmp_path / "memory.max").write_text("max\n")
    assert machine._cgroup(tmp_path) is None
    assert machine._cgroup(Path("/nowhere")) is None


def test_paging_out_loses_nothing(tmp_path):
    import mmap

    import torch

    from darkroom.machine import page_out

    path = tmp_path / "x"
    path.write_bytes(bytes(range(256)) * 64)
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    for tensor in (torch.frombuffer(mapped, dtype=torch.uint8), torch.ones(16_384).byte()):
        before = tensor.clone()
        tensor[5] = before[5] = 77  # private from here on
        page_out(tensor.data_ptr() + 1, tensor.nbytes - 1)
        assert torch.equal(tensor, before)


def test_interruptions_are_counted():
    assert machine.interruptions() >= 0
    assert machine.interruptions() <= machine.interruptions()
