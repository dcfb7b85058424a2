"""The networks against figures of the official code with the same weights, and their full-size keys."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from baselines import REGRESSORS
from baselines.hmr.backbone import BackboneSize
from baselines.hmr.decoder import DecoderSize
from baselines.hmr.regressor import Network, Regressor
from tests.baselines.hmr.networks import FIGURES, NAMES, network, regressor, tokenizer
from tests.baselines.hmr.seeded import crops, probe

TOLERANCE = 1e-4
KEYS = json.loads((Path(__file__).parent / "official_keys.json").read_text())


def official_keys(part: str) -> dict[str, list[int]]:
    """Names and shapes of a part's tensors at full size; ``{n}`` in a name stands for 0 ... n - 1."""
    out = {}
    for pattern, shape in KEYS[part].items():
        count = re.search(r"\{(\d+)\}", pattern)
        for k in range(int(count[1]) if count else 1):
            out[pattern if count is None else pattern.replace(count[0], str(k))] = shape
    return out


@pytest.mark.parametrize("name", NAMES)
def test_full_size_keys_and_shapes_are_the_official_ones(name: str) -> None:
    with torch.device("meta"):
        model = Network(BackboneSize(), DecoderSize(), REGRESSORS[name].tokens)
    ours = {key: list(value.shape) for key, value in model.state_dict().items()}
    assert ours == official_keys(name)
    head = {"tokenhmr": 50_287_967, "hmr2": 39_547_037}[name]
    assert sum(p.numel() for p in model.parameters()) == 630_912_000 + head


@pytest.mark.parametrize("name", NAMES)
def test_every_output_is_that_of_the_official_code(name: str) -> None:
    official, model, images = FIGURES[name], regressor(name), crops(3)

    def close(field: str, value: Tensor, as_probe: bool = False) -> None:
        found = probe(value) if as_probe else value.numpy()
        np.testing.assert_allclose(found, official[field], atol=TOLERANCE, rtol=0, err_msg=field)

    features = model.network.features(images)
    assert features.shape == (3, 192, 32)
    close("features", features, as_probe=True)
    output = model(images)
    for field in ("root", "pose", "betas", "camera"):
        close(field, getattr(output, field))
    if official.get("token_probs") is None:
        assert output.token_probs is None
    else:
        logits = model.network(images).token_logits
        assert logits is not None
        assert output.token_probs is not None
        close("token_logits", logits, as_probe=True)
        close("token_probs", output.token_probs, as_probe=True)
        assert output.token_probs.sum(-1).numpy() == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_matters_to_the_figures(name: str) -> None:
    """A figure that some weight left alone would not notice that weight's loss."""
    images, model = crops(1), regressor(name)
    parameters = dict(model.network.named_parameters())
    for parameter in [*parameters.values(), *model.network.buffers()]:
        parameter.requires_grad_(True)
    readout = model.network(images)
    total = readout.pose6d.square().sum() + readout.betas.square().sum() + readout.camera.square().sum()
    if readout.token_logits is not None:
        total = total + readout.token_logits.square().sum()
    total.backward()
    # The query starts as zero, and softmaxes do not see what all keys have in common; nor does the
    # self-attention of a single query see its own query and key.
    blind = {"smpl_head.transformer.to_token_embedding.weight"}
    unused = {name for name, p in parameters.items() if p.grad is None or float(p.grad.abs().max()) == 0}
    assert unused == blind


def test_people_of_a_batch_do_not_see_each_other() -> None:
    model, images = regressor("tokenhmr"), crops(3)
    alone, together = model(images[1:2]), model(images)
    for field in ("root", "pose", "betas", "camera", "token_probs"):
        torch.testing.assert_close(getattr(alone, field)[0], getattr(together, field)[1], atol=1e-5, rtol=0)


def test_rotations_are_rotations_and_conventions_differ() -> None:
    for name in NAMES:
        output = regressor(name)(crops(2))
        matrices = torch.cat([output.root[:, None], output.pose], 1)
        eye = torch.eye(3).expand_as(matrices)
        torch.testing.assert_close(matrices @ matrices.mT, eye, atol=1e-5, rtol=0)
        assert matrices.det().numpy() == pytest.approx(1.0, abs=1e-5)


def test_half_precision_is_that_of_the_backbones_matrices_alone() -> None:
    images = crops(2)
    exact = regressor("hmr2")(images)
    model = network("hmr2")
    for block in model.backbone.modules():
        if isinstance(block, torch.nn.Linear | torch.nn.Conv2d):
            block.to(torch.bfloat16)
    rounded = Regressor(model, None)(images)
    assert rounded.pose.dtype == rounded.betas.dtype == torch.float32
    error = (rounded.pose - exact.pose).abs().max()
    assert 0 < float(error) < 0.1


def test_a_tokenizer_belongs_to_a_network_with_tokens() -> None:
    with pytest.raises(ValueError, match="tokenizer"):
        Regressor(network("tokenhmr"), None)
    with pytest.raises(ValueError, match="tokenizer"):
        Regressor(network("hmr2"), tokenizer())
