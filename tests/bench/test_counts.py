"""Counted operations against those that torch counts."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from depthfit.bench import counts
from depthfit.body.load import load_body
from depthfit.fit import FitConfig, Fitter
from depthfit.fit.problem import step_layout
from depthfit.tokens.jacobian import decoder_vjp
from depthfit.tokens.vqvae import CODE_DIM, NUM_TOKENS, Tokenizer


def counted(work: object) -> int:
    assert callable(work)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize("width", [8, 16])
def test_decoder_and_its_pull_back(width: int) -> None:
    tokenizer = Tokenizer(width)
    latents = torch.zeros(1, NUM_TOKENS, CODE_DIM)
    forward = counted(lambda: tokenizer.decode(latents))
    assert forward == counts.decoder_operations(width)
    cotangents = torch.zeros(1, counts.TURNS, 21, 6)
    both = counted(lambda: decoder_vjp(tokenizer, latents, cotangents))
    assert both == (1 + counts.TURNS) * counts.decoder_operations(width)


def test_products_of_the_rows() -> None:
    size = counts.Size(samples=7, pairs=5)
    rows = torch.zeros(1, size.rows, size.columns)
    assert counted(lambda: rows.mT @ rows) == counts.products(size.rows, size)


def test_the_size_is_that_of_a_default_fit() -> None:
    config = FitConfig()
    fitter, size = Fitter(load_body("open"), None, config), counts.Size(samples=config.depth.samples)
    assert size.unknowns == step_layout(fitter.model, config).size
    assert size.pairs == 2 * config.contour.points


def test_a_part_takes_the_slower_of_its_two() -> None:
    rates = counts.Rates(float32=1e9, bfloat16=1e12, bytes=1e6)
    assert counts.Part("", 2e9, 1.0).least(rates) == 2.0
    assert counts.Part("", 1.0, 3e6).least(rates) == 3.0
    assert counts.Part("", 2e12, 1.0, bfloat16=True).least(rates) == 2.0
