"""Where transformers keeps DistilBERT, and how its config.json says so."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from darkroom.models.distilbert import DISTILBERT, DistilBert, DistilBertConfig
from darkroom.weights.configs import TEXT_IGNORED, Fields, Json
from darkroom.weights.layout import Entry, Layout, Table, under, unused

BLOCK: Table = {
    "attention.q_lin": "attention.q",
    "attention.k_lin": "attention.k",
    "attention.v_lin": "attention.v",
    "attention.out_lin": "attention.out",
    "ffn.lin1": "up",
    "ffn.lin2": "down",
}
WORDS = "embeddings.word_embeddings"
HEAD_CHANNELS = 64  # per attention head, where no config tells


def transformers(config: DistilBertConfig, theirs: str = "", ours: str = "") -> Iterator[Entry]:
    """The names of DistilBertModel, and with ``distilbert.`` of DistilBertForMaskedLM.

    The first is written. A norm's weight and bias may be called gamma and beta, as in the first
    releases. The masked-LM head is left out: what it predicts is words, not features.

    Args:
        theirs, ours: prefixes with their final dot, for a DistilBERT inside another network.
    """
    for start in (theirs, f"{theirs}distilbert."):
        yield Entry(f"{start}{WORDS}", f"{ours}token")
        yield Entry(f"{start}embeddings.position_embeddings", f"{ours}position")
        yield from norm(f"{start}embeddings.LayerNorm", f"{ours}norm")
        for n in range(config.layers):
            layer, block = f"{start}transformer.layer.{n}", f"{ours}blocks.{n}"
            yield from under(layer, block, BLOCK)
            yield from norm(f"{layer}.sa_layer_norm", f"{block}.norm1")
            yield from norm(f"{layer}.output_layer_norm", f"{block}.norm2")
        yield from unused(f"{start}embeddings.position_ids")
    yield from unused(*(f"{theirs}vocab_{part}" for part in ("transform", "layer_norm")))
    yield from unused(f"{theirs}vocab_projector")


def norm(theirs: str, ours: str) -> Iterator[Entry]:
    """A LayerNorm under today's names and under the first ones."""
    yield Entry(theirs, ours)
    yield Entry(f"{theirs}.gamma", f"{ours}.weight", bare=True)
    yield Entry(f"{theirs}.beta", f"{ours}.bias", bare=True)


PRESETS = {"distilbert-base": DISTILBERT}
TRANSFORMERS = Layout("transformers-distilbert", WORDS, transformers, DistilBert, PRESETS)

FIXED: Json = {
    "model_type": "distilbert",
    "activation": "gelu",
    "is_decoder": False,
    "add_cross_attention": False,
    "pruned_heads": ({}, []),
    "tie_encoder_decoder": False,
}
IGNORED = (TEXT_IGNORED - {"dropout", "attention_dropout"}) | {
    "eos_token_id",
    "output_past",
    "qa_dropout",  # of heads that are not ours
    "seq_classif_dropout",
    "sinusoidal_pos_embds",  # how positions were drawn before training
    "tie_weights_",  # of the masked-LM head
}


def distilbert_config(data: Json, where: str = "config.json") -> DistilBertConfig:
    """Read the config of a DistilBertModel or DistilBertForMaskedLM.

    Raises:
        CheckpointError: naming the key and the value that our network does not implement.
    """
    fields = Fields(data, where, FIXED, IGNORED)
    channels, heads = fields.take("dim", 768), fields.take("n_heads", 12)
    if heads < 1 or channels % heads:
        raise fields.error("n_heads", f"must divide dim, {channels}")
    config = DistilBertConfig(
        vocabulary=fields.take("vocab_size", 30_522),
        positions=fields.take("max_position_embeddings", 512),
        channels=channels,
        layers=fields.take("n_layers", 6),
        heads=heads,
        hidden=fields.take("hidden_dim", 3072),
        dropout=float(fields.take("dropout", 0.1)),
        attention_dropout=float(fields.take("attention_dropout", 0.1)),
    )
    fields.finish()
    return config


def distilbert_json(config: DistilBertConfig) -> dict[str, Any]:
    """The config.json with which transformers builds the same network."""
    return {
        "activation": "gelu",
        "architectures": ["DistilBertModel"],
        "attention_dropout": config.attention_dropout,
        "dim": config.channels,
        "dropout": config.dropout,
        "hidden_dim": config.hidden,
        "initializer_range": 0.02,
        "max_position_embeddings": config.positions,
        "model_type": "distilbert",
        "n_heads": config.heads,
        "n_layers": config.layers,
        "pad_token_id": 0,
        "sinusoidal_pos_embds": False,
        "vocab_size": config.vocabulary,
    }


def distilbert_sizes(state: Mapping[str, Tensor], prefix: str = "") -> DistilBertConfig:
    """The config of a file without one, by its shapes; heads are taken to be 64 wide.

    Args:
        prefix: what comes before ``embeddings`` or ``distilbert.embeddings``.

    Raises:
        KeyError: a tensor that tells a size is missing.
        ValueError: the heads cannot be told.
    """
    if f"{prefix}{WORDS}.weight" not in state:
        prefix += "distilbert."
    words, channels = state[f"{prefix}{WORDS}.weight"].shape
    if channels % HEAD_CHANNELS:
        raise ValueError(
            f"{channels} channels are not whole heads of {HEAD_CHANNELS}; load a folder with its "
            "config.json"
        )
    layer = f"{prefix}transformer.layer."
    return DistilBertConfig(
        vocabulary=words,
        positions=state[f"{prefix}embeddings.position_embeddings.weight"].shape[0],
        channels=channels,
        layers=len({k[len(layer) :].split(".")[0] for k in state if k.startswith(layer)}),
        heads=channels // HEAD_CHANNELS,
        hidden=state[f"{layer}0.ffn.lin1.weight"].shape[0],
    )
