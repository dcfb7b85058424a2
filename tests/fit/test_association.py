"""Association's inner loops against what can be said by hand."""

from __future__ import annotations

import math

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


def test_partners_are_those_of_a_plain_search() -> None:
    generator = torch.Generator().manual_seed(3)
    xy, to_xy = (300 * torch.rand(2, count, 2, generator=generator).double() for count in (15, 40))
    angle, to_angle = (2 * math.pi * torch.rand(2, count, generator=generator).double() for count in (15, 40))
    valid = torch.rand(2, 40, generator=generator) < 0.6
    normal, to_normal = (torch.stack([a.cos(), a.sin()], -1) for a in (angle, to_angle))
    index, cost, squared = association_torch.nearest(xy, normal, to_xy, to_normal, valid, 0.99)
    lonely = 0
    for person in range(2):
        for point in range(15):
            options = {}
            for k in range(40):
                cosine = math.cos(float(angle[person, point] - to_angle[person, k]))
                if valid[person, k] and cosine > 0.99:
                    apart = float((xy[person, point] - to_xy[person, k]).square().sum())
                    options[k] = apart * (1 + association_torch.NORMAL_PENALTY * (1 - cosine))
            lonely += not options
            assert bool(cost[person, point].isfinite()) == bool(options)
            if options:
                best = min(options, key=lambda k: options[k])
                assert index[person, point] == best
                assert math.isclose(float(cost[person, point]), options[best], rel_tol=1e-9)
                apart = (xy[person, point] - to_xy[person, best]).square().sum()
                torch.testing.assert_close(squared[person, point], apart)
    assert 0 < lonely < 30
