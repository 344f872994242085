"""How long an exact search takes, beside numpy's own way and faiss's; and what faiss misses.

    python benchmarks/searching/search_speed.py [--count 10000 100000 1000000] [--width 512]
        [--place DIR] [--faiss] [--dedupe] [--out NAME]

Vectors are drawn: 2,000 bunches, numbers of falling variance, a mean that all share and one number
far larger than the others, roughly as CLIP's are. Queries are vectors of the store with some noise.
All is in memory (the system's cache of files): this is arithmetic, not disks. Times are medians.
Stores are kept in DIR and used again.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from darkroom.vision.search import NAME, Index, Writer, search
from darkroom.vision.search.duplicates import duplicates
from darkroom.vision.search.nearest import nearest
from darkroom.vision.search.store import File

sys.path.insert(0, str(Path(__file__).parents[1]))
import machine

BEST = 9
CHUNK = 10_000


def fill(place: Path, count: int, width: int) -> float:
    """Make a store of drawn vectors, if it is not there; seconds."""
    if (place / NAME).exists():
        return 0.0
    place.mkdir(parents=True, exist_ok=True)
    g = torch.Generator().manual_seed(0)
    spread = (torch.arange(width) + 1.0).pow(-0.4)
    mean = 0.05 * torch.randn(width, generator=g)
    mean[7] = 0.6
    middles = torch.randn(2000, width, generator=g) * spread
    encoder: Any = SimpleNamespace(
        name="drawn", size=1, crop=True, model=SimpleNamespace(state_dict=dict),
        encode_text=lambda _: torch.ones(1, width),
    )  # fmt: skip
    began = time.perf_counter()
    with Writer(place / NAME, place, encoder) as writer:
        for start in range(0, count, CHUNK):
            n = min(CHUNK, count - start)
            noise = 0.8 * torch.randn(n, width, generator=g) * spread
            vectors = middles[torch.randint(2000, (n,), generator=g)] + noise + mean
            files = [
                (File(f"{i // 1000}/{i}.jpg", i, i), b"%16d" % i, i)
                for i in range(start, start + n)
            ]
            writer.add(files, F.normalize(vectors, dim=1))
        writer.commit()
    return time.perf_counter() - began


def plainly(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """numpy: float16 to float32 a part at a time, a product, the best."""
    scores = np.concatenate(
        [vectors[i : i + CHUNK].astype(np.float32) @ query for i in range(0, len(vectors), CHUNK)]
    )
    best = np.argpartition(-scores, BEST)[:BEST]
    return best[np.argsort(-scores[best])]


def milliseconds(work: Callable[[Any], object], queries: Any) -> float:
    """Median over queries, after one to warm up."""
    work(queries[0])
    taken = []
    for query in queries:
        began = time.perf_counter()
        work(query)
        taken.append(1000 * (time.perf_counter() - began))
    return statistics.median(taken)


def measure(place: Path, count: int, arguments: argparse.Namespace) -> dict[str, Any]:
    filled = fill(place, count, arguments.width)
    index = Index.open(place)
    g = torch.Generator().manual_seed(5)
    rows = torch.randint(count, (arguments.queries,), generator=g)
    noise = 0.03 * torch.randn(len(rows), arguments.width, generator=g)
    queries = F.normalize(index.vectors[rows].float() + noise, dim=1)
    truth = [set(nearest(index, query, BEST)[0].tolist()) for query in queries]
    plain = [set(plainly(index.vectors.numpy(), q.numpy()).tolist()) for q in queries[:10]]
    found: dict[str, Any] = {
        "vectors": count,
        "equal to numpy's": sum(len(a & b) for a, b in zip(truth, plain, strict=False)) / 90,
        "filled, s": round(filled, 1),
        "nearest, ms": milliseconds(lambda q: nearest(index, q, BEST), queries),
        "search, ms": milliseconds(lambda q: search(index, q, BEST), queries),
        "numpy, ms": milliseconds(lambda q: plainly(index.vectors.numpy(), q.numpy()), queries[:5]),
    }
    if arguments.dedupe:
        began = time.perf_counter()
        found["copies"] = sum(len(step.groups) for step in duplicates(index))
        found["dedupe, s"] = time.perf_counter() - began
    if arguments.faiss:
        from darkroom.vision.search.approximate import Lists, build

        began = time.perf_counter()
        if not list(index.path.glob("lists-*")):
            build(index)
            found["lists made, s"] = time.perf_counter() - began
        lists = Lists(index)
        found["faiss, ms"] = milliseconds(lambda q: lists.nearest(q, BEST), queries)
        hits = [
            len(set(lists.nearest(q, BEST)[0].tolist()) & t)
            for q, t in zip(queries, truth, strict=True)
        ]
        found["faiss, recall at 9"] = sum(hits) / (BEST * len(hits))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--place", type=Path, default=Path("runs/search-speed"))
    parser.add_argument("--faiss", action="store_true")
    parser.add_argument("--dedupe", action="store_true", help="at 100,000 and less")
    parser.add_argument("--out", help="writes benchmarks/results/<date>-NAME.*")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    about = machine.describe(arguments.threads)
    rows = []
    for count in arguments.count:
        place = arguments.place / f"{count}-{arguments.width}"
        limited = argparse.Namespace(**vars(arguments))
        limited.dedupe = arguments.dedupe and count <= 100_000
        rows.append(measure(place, count, limited))
        print(rows[-1], flush=True)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = [
        "# Search",
        "",
        machine.line(about),
        "",
        f"Vectors of {arguments.width} numbers, the {BEST} nearest, one query at a time.",
        "",
        "| " + " | ".join(columns) + " |",
        "|" + "--:|" * len(columns),
    ]
    for row in rows:
        text.append("| " + " | ".join(_cell(row.get(name)) for name in columns) + " |")
    print("\n".join(text))
    if arguments.out:
        fields = {"machine": about, "rows": rows}
        machine.write(machine.RESULTS, arguments.out, fields, "\n".join(text))


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"


if __name__ == "__main__":
    main()
