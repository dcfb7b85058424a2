"""One studio and a few worlds for all tests of the synthetic scenes."""

from __future__ import annotations

import pytest

from depthfit.synth import SynthConfig
from depthfit.synth.generate import Studio, SyntheticImage, open_studio, sample

SMALL = {"width": 320, "height": 240}


@pytest.fixture(scope="session")
def studio() -> Studio:
    """Without a tokenizer."""
    return open_studio(SynthConfig(token_probs=False))


@pytest.fixture(scope="session")
def images(studio: Studio) -> list[SyntheticImage]:
    config = SynthConfig(seed=1, images=12, token_probs=False, people_weights=(1, 1, 1), **SMALL)
    return list(sample(config, studio))
