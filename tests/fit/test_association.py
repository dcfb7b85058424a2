"""Association's inner loops against what can be said by hand."""

from __future__ import annotations

import torch

from depthfit.fit import association_torch


def test_uncovered_counts_what_lies_beyond_the_margin() -> None:
    """Two cells apart is near enough, three is not; corners count like sides."""
    face, own = torch.full((3, 12, 12), -1), torch.zeros(3, 12, 12, dtype=torch.bool)
    everywhere, nobody = torch.ones_like(own), torch.zeros_like(own)
    own[:, 4, 4] = True
    for person, place in enumerate(((6, 6), (4, 7), (6, 7))):
        face[(person, *place)] = 0
    share = association_torch.uncovered(face, own, nobody, everywhere, 2)
    assert share.tolist() == [0.0, 2.0, 2.0]
    assert association_torch.uncovered(face, own, nobody, nobody, 2).tolist() == [0.0, 1.0, 1.0]
