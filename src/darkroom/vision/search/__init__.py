"""A store of embeddings, search in it, and near duplicates."""

from darkroom.vision.search.embedding import Embedded, embed, pictures_in
from darkroom.vision.search.nearest import Match, query, search
from darkroom.vision.search.store import NAME, Index
from darkroom.vision.search.writing import Writer

__all__ = [
    "NAME",
    "Embedded",
    "Index",
    "Match",
    "Writer",
    "embed",
    "pictures_in",
    "query",
    "search",
]
