"""Masks as polygons and back.

Coordinates are of pixel corners, as in COCO: the pixel in column x and row y is the square from
(x, y) to (x + 1, y + 1), and lies in a polygon if its centre does.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from darkroom.masks.regions import find_regions

Ring = np.ndarray  # (N, 2) of (x, y), float64; the last point is not the first again
Polygon = tuple[Ring, ...]  # an outline, clockwise on the screen; then its holes, the other way

__all__ = ["Polygon", "Ring", "fill", "outlines", "tied"]

STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # (x, y): right, down, left, up
PAIRS = 20_000  # of points, that are compared at once
ROUNDING = 0.15  # pixels
SMALLEST = 0.25  # pixels; a smaller tolerance leaves out next to nothing


def outlines(values: np.ndarray, tolerance: float = 0.0, least: float = 0.0) -> list[Polygon]:
    """One polygon for each region (touching corners join) of (H, W) of bool, from the top.

    Args:
        tolerance: 0 follows the pixels' edges; above it, lines run through the middles of the
            edges and leave out points that lie within ``tolerance`` pixels of them (Douglas and
            Peucker, 1973).
        least: the tolerance is halved until the polygons, filled, overlap with ``values`` by
            this IoU, even if whoever fills them rounds (pycocotools: to fifths of a pixel).
    """
    rows, columns = (np.flatnonzero(values.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return []
    corner = np.array((columns[0], rows[0]))
    values = values[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    rings, holes, owners = _traced(values)
    while True:
        drawn = [_drawn(ring, tolerance) for ring in rings]
        found: list[list[Ring]] = [[] for _ in range(int(owners.max(initial=-1)) + 1)]
        for i in np.argsort(holes, kind="stable"):
            found[owners[i]].append(drawn[i])
        polygons = [tuple(parts) for parts in found]
        if not tolerance or not least or _overlap(polygons, values) >= least:
            return [tuple(ring + corner for ring in parts) for parts in polygons]
        tolerance = tolerance / 2 if tolerance >= 2 * SMALLEST else 0.0


def fill(polygons: Sequence[Polygon], shape: tuple[int, ...]) -> np.ndarray:
    """(H, W) bool: the pixels whose centre lies in one of the polygons (even-odd for its rings).

    What lies outside of the picture is cut off.
    """
    height, width = shape
    starts, ends, owners = _edges(polygons)
    (x0, y0), (x1, y1) = starts.T, ends.T
    # an edge crosses the middles x + 0.5 of these columns
    first = np.ceil(np.minimum(x0, x1) - 0.5).clip(0, width).astype(np.int64)
    last = np.ceil(np.maximum(x0, x1) - 0.5).clip(0, width).astype(np.int64)
    count = last - first
    edge = np.repeat(np.arange(len(count)), count)
    column = np.arange(len(edge)) + np.repeat(first - (np.cumsum(count) - count), count)
    slope = (y1 - y0)[edge] / (x1 - x0)[edge]
    y = y0[edge] + slope * (column + 0.5 - x0[edge])
    row = np.ceil(y - 0.5).clip(0, height).astype(np.int64)
    size = height * width
    crossings = np.sort(owners[edge] * (size + 1) + column * height + row) % (size + 1)
    opens, closes = np.sort(crossings[::2]), np.sort(crossings[1::2])  # of runs down the columns
    if len(opens):  # those that overlap become one
        apart = np.flatnonzero(opens[1:] > closes[:-1])
        opens, closes = opens[np.append(0, apart + 1)], closes[np.append(apart, -1)]
    runs = np.diff(np.stack([opens, closes], 1).ravel(), prepend=0, append=size)
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def tied(rings: Sequence[Ring]) -> Ring:
    """All of them as one closed line, for formats that know no holes or parts.

    Each next one is reached, and left again, by the shortest line between two points (of large
    ones, from their first point); both ways cancel out where crossings are counted.
    """
    joined = rings[0]
    for ring in rings[1:]:
        ends = ring if len(joined) * len(ring) <= PAIRS else ring[:1]
        apart = np.square(joined[:, None] - ends[None]).sum(-1)
        here, there = np.unravel_index(apart.argmin(), apart.shape)
        loop = np.roll(ring, -there, axis=0)
        joined = np.concatenate([joined[: here + 1], loop, loop[:1], joined[here:]])
    return joined


def _traced(values: np.ndarray) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Rings of steps along the pixels' edges, the inside on the right.

    Returns:
        The steps (N,) of each ring, as 4 * corner + direction with the corners numbered row by
        row (``STEPS``, width + 1 corners a row) in rows of (corner, direction); which rings are
        holes; the number of each one's region.
    """
    height, width = values.shape
    padded = np.zeros((height + 2, width + 2), bool)
    padded[1:-1, 1:-1] = values
    level = padded[1:, 1:-1] != padded[:-1, 1:-1]  # (H + 1, W), edges between rows
    upright = padded[1:-1, 1:] != padded[1:-1, :-1]  # (H, W + 1)
    y, x = np.nonzero(level)
    inside = padded[y + 1, x + 1]  # below: to the right, along its top; else to the left
    corner = y * (width + 1) + x + ~inside
    steps = [4 * corner + np.where(inside, 0, 2)]
    y, x = np.nonzero(upright)
    inside = padded[y + 1, x + 1]  # on the right: up, along its left side; else down
    steps.append(4 * ((y + inside) * (width + 1) + x) + np.where(inside, 3, 1))
    step = np.sort(np.concatenate(steps))
    corner, way = step // 4, step % 4
    end = corner + np.array([1, width + 1, -1, -width - 1])[way]
    after = np.searchsorted(step, 4 * end)
    # where two pixels touch at a corner only, turn left, to the other one
    crossing = (np.append(corner, [-1])[after + 1] == end) & (way[after] != (way - 1) % 4)
    rings = list(_cycles((after + crossing).tolist()))
    first = np.array([ring[0] for ring in rings], np.int64)
    holes = way[first] == 1  # from its topmost corner, the leftmost: down, not to the right
    y, x = np.divmod(corner[first], width + 1)
    owners = find_regions(values).at(y * width + x - holes)
    points = np.stack([corner % (width + 1), corner // (width + 1), way], 1)
    return [points[ring] for ring in rings], holes, owners


def _cycles(after: list[int]) -> Iterator[list[int]]:
    """The cycles of a permutation, each from its smallest member."""
    seen = bytearray(len(after))
    for start in range(len(after)):
        if seen[start]:
            continue
        cycle, here = [], start
        while not seen[here]:
            seen[here] = 1
            cycle.append(here)
            here = after[here]
        yield cycle


def _drawn(ring: np.ndarray, tolerance: float) -> Ring:
    """The points of a ring of steps: rows of (x, y, direction)."""
    way = ring[:, 2]
    turns = way != np.roll(way, 1)
    corners = ring[turns, :2].astype(np.float64)
    if not tolerance:
        return corners
    middles = ring[:, :2] + STEPS[way] / 2
    simple = _simplified(middles[turns | np.roll(turns, -1)], tolerance)
    return simple if len(simple) > 2 else corners


def _simplified(points: Ring, tolerance: float) -> Ring:
    """Douglas and Peucker's choice of the points of a closed line."""
    closed = np.concatenate([points, points[:1]])
    kept = np.zeros(len(closed), bool)
    middle = int(np.square(points - points[0]).sum(1).argmax())
    kept[[0, middle]] = True
    pending = [(0, middle), (middle, len(points))]
    while pending:
        start, end = pending.pop()
        if end - start < 2:
            continue
        chord = closed[end] - closed[start]
        from_start = closed[start + 1 : end] - closed[start]
        length = np.square(chord).sum()
        if length:
            along = (from_start @ chord / length).clip(0, 1)
            from_start = from_start - along[:, None] * chord
        apart = np.square(from_start).sum(1)
        worst = int(apart.argmax())
        if apart[worst] > tolerance**2:
            kept[start + 1 + worst] = True
            pending += [(start, start + 1 + worst), (start + 1 + worst, end)]
    return closed[:-1][kept[:-1]]


def _overlap(polygons: Sequence[Polygon], values: np.ndarray) -> float:
    """The least IoU of what the polygons fill, moved by up to ``ROUNDING`` pixels."""
    found = []
    for move in ROUNDING * np.array([(-1, -1), (-1, 1), (1, -1), (1, 1)]):
        moved = [tuple(ring + move for ring in polygon) for polygon in polygons]
        filled = fill(moved, values.shape)
        found.append((filled & values).sum() / (filled | values).sum())
    return min(found)


def _edges(polygons: Sequence[Polygon]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start and end (E, 2) of every edge that crosses columns, and its polygon (E,)."""
    none = np.zeros((0, 2))
    rings = [
        (i, np.asarray(ring, np.float64)) for i, rings in enumerate(polygons) for ring in rings
    ]
    starts = np.concatenate([ring for _, ring in rings] or [none])
    ends = np.concatenate([np.roll(ring, -1, axis=0) for _, ring in rings] or [none])
    owners = np.repeat([i for i, _ in rings], [len(ring) for _, ring in rings]).astype(np.int64)
    across = starts[:, 0] != ends[:, 0]
    return starts[across], ends[across], owners[across]
