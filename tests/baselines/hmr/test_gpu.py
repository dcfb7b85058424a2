"""The same figures on a GPU, in each precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from baselines.hmr.regressor import Regressor
from baselines.hmr.release import PRECISIONS, place
from tests.baselines.hmr.networks import FIGURES, NAMES, network, regressor
from tests.baselines.hmr.seeded import crops

TOLERANCE = {"float32": 5e-3, "float16": 5e-2, "bfloat16": 3e-1}
"""Of rotations. Convolutions on a GPU round to TF32; random weights make much of every rounding."""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_gives_the_official_figures(name: str, precision: str) -> None:
    cuda, on_cpu = torch.device("cuda"), regressor(name)
    placed = place(network(name), cuda, PRECISIONS[precision])
    tokenizer = None if on_cpu.tokenizer is None else on_cpu.tokenizer.to(cuda)
    output = Regressor(placed, tokenizer)(crops(3).to(cuda)).to("cpu")
    for field in ("root", "pose", "betas", "camera"):
        found, expected = getattr(output, field), np.array(FIGURES[name][field])
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found.numpy(), expected, atol=TOLERANCE[precision], err_msg=field)
