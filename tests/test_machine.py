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
