"""Draw the cells that are missing: models loaded once, texts encoded once, seeds in batches."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from darkroom.app.drawing.drawing import Job, halved, jobs, named, start
from darkroom.app.grid.cells import Cell
from darkroom.app.progress import Progress
from darkroom.app.session import Session
from darkroom.app.terminal import waiting
from darkroom.errors import NotEnoughMemoryError

if TYPE_CHECKING:
    from darkroom.generation.picture import Picture


@dataclass
class Batch:
    """Cells that differ in their seeds alone."""

    cells: list[Cell]

    @property
    def job(self) -> Job:
        return Job(self.cells[0].prompt, tuple(cell.seed for cell in self.cells))


def draw(todo: Sequence[Cell]) -> Generator[tuple[Cell, "Picture"]]:
    """Yield each cell's picture when it is finished, with progress on stderr."""
    session = Session()
    bar = Progress("drawing", len(todo), "picture").__enter__()
    try:
        for name in dict.fromkeys(_models(cell) for cell in todo):
            cells = [cell for cell in todo if _models(cell) == name]
            session.models.clear()  # one checkpoint at a time
            for cell, picture in _of_one_model(session, cells):
                bar.advance(1)
                yield cell, picture
    finally:
        bar.__exit__(None, None, None)


def _of_one_model(session: Session, cells: list[Cell]) -> Generator[tuple[Cell, "Picture"]]:
    from darkroom.generation.redraw import with_clip_skip
    from darkroom.text.remembered import remembering

    request = cells[0].request
    with waiting(f"loading {request.model_name}"):
        loaded = session.model(request.model_name, request.precision, request.device)
        refiner = None
        if request.refiner_name:
            refiner = session.model(request.refiner_name, request.precision, request.device)
    encoders: dict[int, Any] = {}
    left = batches(cells, loaded)
    while left:
        batch = left.pop(0)
        request = batch.cells[0].request
        model = with_clip_skip(loaded, request.layers_left_out)
        if not request.lora_names:
            encoder: Any = encoders.setdefault(
                request.layers_left_out, remembering(model.text_encoder)
            )
            model = replace(model, text_encoder=encoder)
        try:
            generation = start(model, request, batch.job, refiner)
        except NotEnoughMemoryError:
            parts = halved(batch.job)
            if not parts:
                raise
            middle = len(parts[0].seeds)
            left[:0] = [Batch(batch.cells[:middle]), Batch(batch.cells[middle:])]
            continue
        for cell, picture in zip(batch.cells, generation.pictures(), strict=True):
            yield cell, named(picture, request)


def batches(cells: Sequence[Cell], model: Any) -> list[Batch]:
    """Cells together that differ in their seeds alone, as many as ``generate`` would take."""
    found: dict[tuple[Any, ...], Batch] = {}
    full: list[Batch] = []
    for cell in cells:
        request = cell.request
        same = tuple(
            str(getattr(request, field.name)) for field in fields(request) if field.name != "seed"
        )
        batch = found.setdefault(same, Batch([]))
        batch.cells.append(cell)
        most = len(jobs(replace(request, count=8), model)[0].seeds)
        if len(batch.cells) == most:
            full.append(found.pop(same))
    return sorted((*full, *found.values()), key=lambda batch: cells.index(batch.cells[0]))


def _models(cell: Cell) -> tuple[Any, ...]:
    request = cell.request
    return request.model_name, request.refiner_name, request.precision, request.device
