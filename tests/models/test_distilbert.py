"""DistilBERT against transformers': sizes, names, configs, outputs, loading."""

import json
from dataclasses import replace

import pytest
import torch

import darkroom as dr
import oracles
from darkroom.errors import CheckpointError, LayoutError
from darkroom.models.distilbert import DISTILBERT, DistilBert, DistilBertConfig
from darkroom.weights.inspect import inspect
from darkroom.weights.layouts.distilbert import (
    TRANSFORMERS,
    distilbert_config,
    distilbert_json,
)
from darkroom.weights.save import save

TINY = DistilBertConfig(
    vocabulary=90, positions=24, channels=32, layers=2, heads=4, hidden=48, dropout=0.2
)
PUBLISHED = json.loads("""{
  "activation": "gelu", "architectures": ["DistilBertForMaskedLM"], "attention_dropout": 0.1,
  "dim": 768, "dropout": 0.1, "hidden_dim": 3072, "initializer_range": 0.02,
  "max_position_embeddings": 512, "model_type": "distilbert", "n_heads": 12, "n_layers": 6,
  "pad_token_id": 0, "qa_dropout": 0.1, "seq_classif_dropout": 0.2, "sinusoidal_pos_embds": false,
  "tie_weights_": true, "transformers_version": "4.10.0.dev0", "vocab_size": 30522
}""")  # distilbert-base-uncased


def theirs(config: DistilBertConfig, device: str = "cpu", kind: str = "DistilBertModel"):
    import transformers

    data = distilbert_json(config)
    with torch.device(device):
        return getattr(transformers, kind)(transformers.DistilBertConfig(**data)).eval()


def sentences(config: DistilBertConfig, length: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(1, config.vocabulary, (3, length), generator=generator)
    mask = torch.ones(3, length, dtype=torch.int64)
    mask[1, length // 2 :] = 0
    mask[2, 1:] = 0
    return ids, mask


def test_sizes_and_names_at_full_size() -> None:
    with torch.device("meta"):
        state = DistilBert(DISTILBERT).state_dict()
    assert sum(tensor.numel() for tensor in state.values()) == 66_362_880
    assert len(state) == 100
    expected = theirs(DISTILBERT, "meta").state_dict()
    reverted = TRANSFORMERS.revert(state, DISTILBERT)
    assert {k: t.shape for k, t in reverted.items()} == {k: t.shape for k, t in expected.items()}


def check_outputs(config: DistilBertConfig, length: int) -> None:
    reference = oracles.randomize(theirs(config))
    model = DistilBert(config).eval()
    model.load_state_dict(TRANSFORMERS.convert(reference.state_dict(), config))
    ids, mask = sentences(config, length)
    expected = reference(ids, attention_mask=mask).last_hidden_state
    kept = mask.bool()  # what stands at padding is nobody's concern, yet equal too
    assert expected.std() > 0.1
    assert oracles.largest(model(ids, mask)[kept], expected[kept]) < 1e-5
    assert oracles.largest(model(ids, mask), expected) < 1e-5
    assert oracles.largest(model(ids), reference(ids).last_hidden_state) < 1e-5


@torch.no_grad()
def test_equal_outputs() -> None:
    check_outputs(TINY, 12)
    check_outputs(replace(TINY, layers=1, heads=2), 24)


@pytest.mark.slow
@torch.no_grad()
def test_equal_outputs_at_full_size() -> None:
    check_outputs(DISTILBERT, 50)


@torch.no_grad()
def test_padding_changes_nothing() -> None:
    model = oracles.randomize(DistilBert(TINY)).eval()
    ids, mask = sentences(TINY)
    other = torch.where(mask.bool(), ids, 7)
    kept = mask.bool()
    torch.testing.assert_close(model(ids, mask)[kept], model(other, mask.bool())[kept])
    torch.testing.assert_close(model(ids[1:2, :6])[0], model(ids, mask)[1, :6])


def test_gradients_are_equal() -> None:
    config = replace(TINY, dropout=0.0, attention_dropout=0.0)
    reference = oracles.randomize(theirs(config)).train()
    model = DistilBert(config).train()
    model.load_state_dict(TRANSFORMERS.convert(reference.state_dict(), config))
    ids, mask = sentences(config)
    model(ids, mask)[:, 0].square().mean().backward()
    reference(ids, attention_mask=mask).last_hidden_state[:, 0].square().mean().backward()
    expected = {name: p.grad for name, p in reference.named_parameters()}
    actual = {name: p.grad for name, p in model.named_parameters()}
    reverted = TRANSFORMERS.revert({n: g for n, g in actual.items() if g is not None}, config)
    assert reverted.keys() == expected.keys()
    for name, gradient in expected.items():
        assert gradient is not None
        assert oracles.largest(reverted[name], gradient) < 1e-5, name


def test_dropout_only_while_training() -> None:
    model = oracles.randomize(DistilBert(TINY))
    ids, mask = sentences(TINY)
    assert not torch.equal(model.train()(ids, mask), model(ids, mask))
    assert torch.equal(model.eval()(ids, mask), model(ids, mask))
    only = DistilBert(replace(TINY, dropout=0.0, attention_dropout=0.5)).train()
    assert not torch.equal(only(ids, mask), only(ids, mask))


def test_bad_sizes() -> None:
    with pytest.raises(ValueError, match="24"):
        DistilBert(TINY)(torch.zeros(1, 25, dtype=torch.int64))
    with pytest.raises(ValueError, match="do not split"):
        DistilBert(replace(TINY, heads=5))


# --- names, configs, files


def test_masked_lm_and_the_first_names() -> None:
    reference = oracles.randomize(theirs(TINY, kind="DistilBertForMaskedLM"))
    state = reference.state_dict()
    assert "vocab_projector.bias" in state
    model = DistilBert(TINY)
    model.load_state_dict(TRANSFORMERS.convert(state, TINY))
    old = {}
    for name, tensor in state.items():
        if "norm" in name.lower() and not name.startswith("vocab"):
            name = name.replace("norm.weight", "norm.gamma").replace("Norm.weight", "Norm.gamma")
            name = name.replace("norm.bias", "norm.beta").replace("Norm.bias", "Norm.beta")
        old[name] = tensor
    assert "distilbert.transformer.layer.1.sa_layer_norm.gamma" in old
    again = TRANSFORMERS.convert(old, TINY)
    for name, tensor in model.state_dict().items():
        assert torch.equal(again[name], tensor)
    with pytest.raises(LayoutError, match="not in this layout"):
        TRANSFORMERS.convert({**state, "distilbert.pooler.weight": torch.zeros(1)}, TINY)


def test_configs() -> None:
    assert distilbert_config(PUBLISHED) == DISTILBERT
    assert distilbert_config({}) == DISTILBERT
    assert distilbert_config(distilbert_json(TINY)) == TINY
    written = json.loads(theirs(TINY).config.to_json_string(use_diff=False))
    assert distilbert_config(written) == TINY


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("activation", "relu", "activation = 'relu'"),
        ("n_layer", 3, "did you mean .n_layers"),
        ("n_heads", 7, "must divide dim"),
    ],
)
def test_strict_configs(key: str, value: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        distilbert_config({**PUBLISHED, key: value})


@pytest.mark.parametrize("kind", ["DistilBertModel", "DistilBertForMaskedLM"])
@torch.no_grad()
def test_folders_of_transformers(kind: str, tmp_path) -> None:
    reference = oracles.randomize(theirs(TINY, kind=kind))
    reference.save_pretrained(tmp_path)
    model = dr.load(tmp_path, device="cpu")
    assert isinstance(model, DistilBert)
    assert model.config == TINY
    assert inspect(tmp_path).kind == "DistilBERT"
    ids, mask = sentences(TINY)
    tower = getattr(reference, "distilbert", reference)
    expected = tower(ids, attention_mask=mask).last_hidden_state
    assert oracles.largest(model(ids, mask), expected) < 1e-5


@torch.no_grad()
def test_saved_for_transformers(tmp_path) -> None:
    import transformers

    model = oracles.randomize(DistilBert(TINY)).eval()
    save(model, tmp_path / "tower")
    reference = transformers.DistilBertModel.from_pretrained(tmp_path / "tower").eval()
    ids, mask = sentences(TINY)
    expected = reference(ids, attention_mask=mask).last_hidden_state
    assert oracles.largest(model(ids, mask), expected) < 1e-5


def test_a_file_alone(tmp_path) -> None:
    config = replace(TINY, channels=128, heads=2, dropout=0.1)
    reference = oracles.randomize(theirs(config, kind="DistilBertForMaskedLM"))
    path = tmp_path / "pytorch_model.bin"
    torch.save(reference.state_dict(), path)
    model = dr.load(path, device="cpu")
    assert model.config == config
    report = inspect(path)
    assert (report.kind, report.details["width"]) == ("DistilBERT", 128)


def test_a_file_alone_whose_heads_nobody_knows(tmp_path) -> None:
    reference = theirs(TINY)
    path = tmp_path / "model.pt"
    torch.save(reference.state_dict(), path)
    with pytest.raises(LayoutError, match=r"32 channels are not whole heads.*config\.json"):
        dr.load(path)
