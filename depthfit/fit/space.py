"""Coordinates in which the body pose is stepped, with the prior that comes with them.

A chart at the current state gives ``basis`` (63 x 63), so that a step s turns the joints by
omega = basis s, and ``offset`` g, so that the prior's residual after the step is g + s: the prior is a unit
normal in these coordinates. Two spaces share the interface: the tokens, and plain joint rotations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from depthfit import so3
from depthfit.joints import NUM_BODY_JOINTS
from depthfit.state import PersonState
from depthfit.struct import TensorStruct, scatter
from depthfit.tokens.jacobian import decoder_vjp
from depthfit.tokens.vqvae import Tokenizer


@dataclass(frozen=True)
class Chart(TensorStruct):
    """Linearisation of a pose space for N people.

    Attributes:
        basis: (N, 63, 63) rad per unit step.
        back: (N, 63, T, C) dual direction of each coordinate, or ``None`` without tokens.
        forward: (N, 63, T, C) token direction of each coordinate, or ``None``.
    """

    basis: Tensor
    back: Tensor | None = None
    forward: Tensor | None = None


class PoseSpace(Protocol):
    """A way to step the 21 body joints, with a prior.

    Attributes:
        recordable: Whether making a chart asks the device nothing, so that a CUDA graph can hold it.
    """

    recordable: ClassVar[bool]

    def __getitem__(self, index: Tensor) -> PoseSpace:
        """The space of some people."""
        ...

    def about(self, pose: Tensor, which: Tensor) -> PoseSpace:
        """The space with its prior about ``pose`` (N, 23, 3, 3) for the people in ``which`` (N,)."""
        ...

    def adopt(self, rows: Tensor, other: PoseSpace) -> PoseSpace:
        """The space with its ``rows`` (M,) taken from ``other``, a space of the same kind over M people."""
        ...

    def tokens(self) -> Tensor:
        """(N, T, C) tokens of the prior's mean; T = 0 without tokens."""
        ...

    def chart(self, people: PersonState) -> Chart: ...

    def empty_chart(self, people: PersonState) -> Chart:
        """A chart's tensors before there is one: for stages in which the pose is held."""
        ...

    def offset(self, chart: Chart, people: PersonState) -> Tensor:
        """(N, 63) prior residual before the step."""
        ...

    def cost(self, people: PersonState) -> Tensor:
        """(N,) half the squared prior residual."""
        ...

    def move(self, chart: Chart, people: PersonState, step: Tensor, damping: Tensor) -> PersonState:
        """Take ``step`` (N, 63); ``damping`` (N,) is the solver's."""
        ...


@dataclass(frozen=True)
class RotationSpace(TensorStruct):
    """Joint rotations with a normal prior on their difference from the prediction.

    Attributes:
        mean: (N, 21, 3, 3) predicted rotations.
        scale: (N, 63, 63) factor L of the covariance L L^T of log(R mean^T), rad.
    """

    recordable: ClassVar[bool] = True

    mean: Tensor
    scale: Tensor

    def about(self, pose: Tensor, which: Tensor) -> RotationSpace:
        return self.replace(
            mean=torch.where(which[:, None, None, None], pose[:, :NUM_BODY_JOINTS], self.mean)
        )

    def adopt(self, rows: Tensor, other: PoseSpace) -> RotationSpace:
        assert isinstance(other, RotationSpace)
        return scatter(rows, other, self)

    def tokens(self) -> Tensor:
        return self.mean.new_zeros(len(self.mean), 0, 0)

    def _error(self, people: PersonState) -> Tensor:
        return so3.log(people.pose[:, :NUM_BODY_JOINTS] @ self.mean.mT)

    def _whiten(self, error: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(self.scale, error.flatten(1)[..., None], upper=False)[..., 0]

    def chart(self, people: PersonState) -> Chart:
        """``basis`` maps to joint turns from the left: omega = J_l(error) L s."""
        left = so3.left_jacobian(self._error(people))
        basis = torch.einsum("njab,njbs->njas", left, self.scale.unflatten(1, (NUM_BODY_JOINTS, 3)))
        return Chart(basis.flatten(1, 2))

    def empty_chart(self, people: PersonState) -> Chart:
        return Chart(_identity(people))

    def offset(self, chart: Chart, people: PersonState) -> Tensor:
        return self._whiten(self._error(people))

    def cost(self, people: PersonState) -> Tensor:
        return (self._whiten(self._error(people)) ** 2).sum(-1) / 2

    def move(self, chart: Chart, people: PersonState, step: Tensor, damping: Tensor) -> PersonState:
        omega = (chart.basis @ step[..., None])[..., 0].unflatten(-1, (NUM_BODY_JOINTS, 3))
        body = so3.exp(omega) @ people.pose[:, :NUM_BODY_JOINTS]
        return people.replace(pose=torch.cat([body, people.pose[:, NUM_BODY_JOINTS:]], 1))


def _identity(people: PersonState) -> Tensor:
    size = 3 * NUM_BODY_JOINTS
    return torch.eye(size, dtype=people.root.dtype, device=people.root.device).expand(
        len(people.root), -1, -1
    )


@dataclass(frozen=True)
class TokenPrior(TensorStruct):
    """Normal prior on soft tokens: covariance inflation^2 (spread^T spread + floor I) for each token.

    The spread of a token is that of the regressor's softmax p over the codes c: with
    spread_k = sqrt(p_k) (c_k - mean), spread^T spread = sum_k p_k (c_k - mean)(c_k - mean)^T. Its shape says
    which tokens the regressor was sure of; its size is far too small (tokens err together, the softmax
    knows each alone), which one calibrated inflation mends.

    Attributes:
        mean: (N, T, C).
        spread: (N, T, k, C), the k likeliest codes.
        floor: (N,) variance that every direction has, in the codes' unit, before inflation.
        inflation: (N,).
    """

    mean: Tensor
    spread: Tensor
    floor: Tensor
    inflation: Tensor

    def covariance(self, dual: Tensor) -> Tensor:
        """Apply the covariance to (N, M, T, C)."""
        along = torch.einsum("nmtc,ntkc->nmtk", dual, self.spread)
        wide = torch.einsum("nmtk,ntkc->nmtc", along, self.spread)
        scale = (self.inflation**2)[:, None, None, None]
        return scale * (wide + self.floor[:, None, None, None] * dual)


def token_prior(
    tokenizer: Tokenizer, probabilities: Tensor, inflation: Tensor, floor: float, codes: int = 16
) -> TokenPrior:
    """Prior from a regressor's token probabilities (N, T, number of codes).

    Args:
        inflation: (N,).
        floor: Share of the codebook's own variance that every direction keeps.
        codes: How many of each token's likeliest codes make its spread.
    """
    mean = probabilities @ tokenizer.codebook
    top, index = probabilities.topk(codes, dim=-1)
    spread = top.sqrt()[..., None] * (tokenizer.codebook[index] - mean[:, :, None])
    return TokenPrior(mean, spread, floor * _code_variance(tokenizer, inflation), inflation)


def flat_token_prior(tokenizer: Tokenizer, mean: Tensor, inflation: Tensor) -> TokenPrior:
    """Prior about latents (N, T, C) of a prediction that came without token probabilities: every direction
    has the codebook's own variance, before inflation."""
    spread = mean.new_zeros(*mean.shape[:2], 0, mean.shape[-1])
    return TokenPrior(mean, spread, _code_variance(tokenizer, inflation), inflation)


def _code_variance(tokenizer: Tokenizer, like: Tensor) -> Tensor:
    return tokenizer.codebook.var(0).mean().expand_as(like)


@dataclass(frozen=True)
class TokenSpace(TensorStruct):
    """Soft tokens stepped through the decoder's Jacobian D = d omega / d tokens (63 x T C).

    With the prior covariance S, G = D S D^T = U E^2 U^T. Any step of the tokens that the data can feel lies
    in the span of S D^T; in the coordinates s of S D^T U E^-1 it turns the joints by U E s and costs |s|^2
    of the prior. So 63 unknowns give the full token space. What of the tokens' offset lies outside that
    span changes no joint to first order and only costs: the exact step drops it, a damped one drops
    1 / (1 + damping) of it.

    Attributes:
        tokenizer: The decoder.
        prior: The prior on the tokens.
        pose_offset: (N, 21, 6) added to the decoded 6D pose (TokenHMR's mean pose; zero for a tokenizer's
            own reconstruction).
    """

    # An eigendecomposition asks whether it converged.
    recordable: ClassVar[bool] = False
    tokenizer: Tokenizer
    prior: TokenPrior
    pose_offset: Tensor

    def about(self, pose: Tensor, which: Tensor) -> TokenSpace:
        body = pose[:, :NUM_BODY_JOINTS]
        encoded = self.tokenizer.encode(so3.to_6d(body))
        mean = torch.where(which[:, None, None], encoded, self.prior.mean)
        offset = pose_offset(self.tokenizer.decode(mean), body)
        offset = torch.where(which[:, None, None], offset, self.pose_offset)
        return self.replace(prior=self.prior.replace(mean=mean), pose_offset=offset)

    def adopt(self, rows: Tensor, other: PoseSpace) -> TokenSpace:
        assert isinstance(other, TokenSpace)
        return scatter(rows, other, self)

    def tokens(self) -> Tensor:
        return self.prior.mean

    def decode(self, tokens: Tensor) -> Tensor:
        """Body joint rotations (N, 21, 3, 3)."""
        return so3.from_6d(self.tokenizer.decode(tokens) + self.pose_offset)

    def chart(self, people: PersonState) -> Chart:
        six = self.tokenizer.decode(people.tokens) + self.pose_offset
        cotangents = turn_cotangents(six)
        _, pulled = decoder_vjp(self.tokenizer, people.tokens, cotangents)
        spread = self.prior.covariance(pulled)
        gram = torch.einsum("nitc,njtc->nij", pulled, spread)
        values, vectors = torch.linalg.eigh((gram + gram.mT) / 2)
        size = values.clamp(min=1e-12).sqrt()
        mix = vectors / size[:, None]
        back = torch.einsum("nis,nitc->nstc", mix, pulled)
        forward = torch.einsum("nis,nitc->nstc", mix, spread)
        return Chart(vectors * size[:, None], back, forward)

    def empty_chart(self, people: PersonState) -> Chart:
        n, count, width = people.tokens.shape
        nothing = people.tokens.new_zeros(n, 3 * NUM_BODY_JOINTS, count, width)
        return Chart(_identity(people), nothing, nothing)

    def offset(self, chart: Chart, people: PersonState) -> Tensor:
        assert chart.back is not None
        return torch.einsum("nstc,ntc->ns", chart.back, people.tokens - self.prior.mean)

    def cost(self, people: PersonState) -> Tensor:
        return (people.dual * (people.tokens - self.prior.mean)).sum((-1, -2)) / 2

    def move(self, chart: Chart, people: PersonState, step: Tensor, damping: Tensor) -> PersonState:
        assert chart.back is not None
        assert chart.forward is not None
        drop = 1 / (1 + damping)
        amount = step + drop[:, None] * self.offset(chart, people)
        keep = (1 - drop)[:, None, None]
        ahead = torch.einsum("ns,nstc->ntc", amount, chart.forward)
        tokens = self.prior.mean + keep * (people.tokens - self.prior.mean) + ahead
        dual = keep * people.dual + torch.einsum("ns,nstc->ntc", amount, chart.back)
        pose = torch.cat([self.decode(tokens), people.pose[:, NUM_BODY_JOINTS:]], 1)
        return people.replace(tokens=tokens, dual=dual, pose=pose)


def pose_offset(decoded: Tensor, rotation: Tensor) -> Tensor:
    """What to add to raw 6D poses (N, 21, 6) so that they orthonormalise to ``rotation`` (N, 21, 3, 3).

    Lengths and the angle of the two raw vectors are kept, so the offset is zero where they agree.
    """
    a1, a2 = decoded[..., :3], decoded[..., 3:]
    b1, b2, _ = so3.from_6d(decoded).unbind(-2)
    n1 = a1.norm(dim=-1, keepdim=True)
    along, across = (b1 * a2).sum(-1, keepdim=True), (b2 * a2).sum(-1, keepdim=True)
    r1, r2, _ = rotation.unbind(-2)
    return torch.cat([n1 * r1, along * r1 + across * r2], -1) - decoded


def turn_cotangents(six: Tensor) -> Tensor:
    """Rows of d omega / d 6D for raw 6D poses (N, 21, 6): (N, 63, 21, 6), each on one joint alone.

    omega turns the rotation from the left, R <- exp(omega) R, R having the Gram-Schmidt vectors b1, b2, b3
    as rows. From d b_i = sum_k hat(omega)_ik b_k and the derivative of Gram-Schmidt,

        omega_z = -b2 . da1 / |a1|,   omega_y = b3 . da1 / |a1|,
        omega_x = -(b3 . da2 - (b1 . a2) b3 . da1 / |a1|) / |a2 - (b1 . a2) b1|.
    """
    b1, b2, b3 = so3.from_6d(six).unbind(-2)
    a1, a2 = six[..., :3], six[..., 3:]
    n1 = a1.norm(dim=-1, keepdim=True)
    along = (b1 * a2).sum(-1, keepdim=True)
    n2 = (a2 - along * b1).norm(dim=-1, keepdim=True)
    zero = torch.zeros_like(b1)
    x = torch.cat([along * b3 / (n1 * n2), -b3 / n2], -1)
    y = torch.cat([b3 / n1, zero], -1)
    z = torch.cat([-b2 / n1, zero], -1)
    rows = torch.stack([x, y, z], -2)  # (N, 21, 3, 6)
    joints = torch.eye(NUM_BODY_JOINTS, dtype=six.dtype, device=six.device)
    return torch.einsum("njaf,jk->njakf", rows, joints).flatten(1, 2)
