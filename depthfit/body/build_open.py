"""Build the open body: Anny's people, posed to a T and reduced to SMPL's layout.

Anny (Bregier et al., "Anny Body", arXiv:2511.03589; Apache-2.0) blends the CC0 assets of MakeHuman. This
module samples adults from it, brings them to SMPL's rest pose and joints, and keeps ten principal shapes.
The result is shipped, so only a rebuild needs ``anny`` (the extra ``[body]``).

Frames: Anny is z up and faces -y; the result is y up and faces +z. The person's left is +x in both. Metres.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse, stats

from depthfit.body.asset import ASSET, GENDERS, OpenBodyAsset, ShapeSpace, write_asset
from depthfit.errors import InputError
from depthfit.joints import JOINT_INDEX, KEYPOINTS, NUM_JOINTS, SMPL_JOINTS, SMPL_PARENTS

Array = NDArray[np.float64]

NUM_SHAPES = 10
NUM_EXTRA_SHAPES = 10
SEED = 20240229
ADULTS_PER_GENDER = 200
WIDER_ADULTS = 300
ADULT_YEARS = (18.0, 80.0)
LOCAL_CHANGE_SIGMA = 0.25
"""Spread of Anny's local changes, whose full range is -1..1, for the further shape directions."""

CREDIT = (
    "The open body is derived from Anny 0.6 (NAVER LABS Europe; Apache-2.0). Its mesh, rig, skinning weights "
    "and shapes come from MakeHuman / MPFB2 assets dedicated to the public domain under CC0 1.0 Universal, "
    "and are offered here under CC0 1.0 too. The keypoint regressors are Anny's, under Apache-2.0."
)

_SIDE_BONES = {
    "hip": ("upperleg01", ("upperleg01", "upperleg02")),
    "knee": ("lowerleg01", ("lowerleg01", "lowerleg02")),
    "ankle": ("foot", ("foot",)),
    "foot": ("toe2-1", ("toe",)),
    "collar": ("clavicle", ("clavicle", "shoulder01")),
    "shoulder": ("upperarm01", ("upperarm01", "upperarm02")),
    "elbow": ("lowerarm01", ("lowerarm01", "lowerarm02")),
    "wrist": ("wrist", ("wrist",)),
    "hand": ("finger3-1", ("finger", "metacarpal")),
}
_MIDDLE_BONES = {
    "pelvis": ("root", ("root", "pelvis.", "spine05")),
    "spine1": ("spine04", ("spine04",)),
    "spine2": ("spine03", ("spine03", "spine02")),
    "spine3": ("spine01", ("spine01",)),
    "neck": ("neck01", ("neck",)),
    "head": ("head", ("head", "eye.")),
}
_REST_DIRECTION = {
    "hip": ("knee", (0.12, -1.0, 0.0)),
    "knee": ("ankle", (0.05, -1.0, 0.0)),
    "shoulder": ("elbow", (1.0, 0.0, 0.0)),
    "elbow": ("wrist", (1.0, 0.0, 0.0)),
    "wrist": ("hand", (1.0, 0.0, 0.0)),
}
"""Left limb joint -> the joint its bone ends at, and the direction of that bone in the rest pose."""


@dataclass(frozen=True)
class People:
    """Rest meshes of sampled people, in depthfit's frame with the pelvis at the origin, and their joints."""

    vertices: Array  # (N, V, 3) m
    joints: Array  # (N, 24, 3) m


@dataclass(frozen=True)
class BuildReport:
    """What a build measured. Lengths in the unit of the name; shares are of the variance."""

    vertices: int
    faces: int
    explained: dict[str, float]
    joint_error_mm: tuple[float, float]  # mean and largest over the sampled adults
    wider_joint_error_mm: tuple[float, float]  # over the people behind the further directions
    stature_m: tuple[tuple[float, float], ...]  # mean and spread for each of GENDERS
    size_bytes: int

    def __str__(self) -> str:
        return "\n".join(f"{f.name}: {getattr(self, f.name)}" for f in fields(self))


def bone_groups(bone_labels: list[str]) -> tuple[list[int], NDArray[np.int64]]:
    """Map Anny's rig onto SMPL's joints.

    Returns:
        The index of the bone whose head is each SMPL joint (24), and the SMPL joint that each bone follows.
    """
    heads, owner = [], np.full(len(bone_labels), -1)
    for j, name in enumerate(SMPL_JOINTS):
        side, _, part = name.rpartition("_")
        head, prefixes = _SIDE_BONES[part] if side else _MIDDLE_BONES[name]
        suffix = {"left": ".L", "right": ".R", "": ""}[side]
        heads.append(bone_labels.index(head + suffix))
        for b, label in enumerate(bone_labels):
            if label.startswith(prefixes) and label.endswith(suffix):
                owner[b] = j
    unassigned = [label for label, j in zip(bone_labels, owner, strict=True) if j < 0]
    if unassigned:
        raise InputError("anny", "bone_labels", f"bones {unassigned} follow no joint", "Install anny 0.6.")
    return heads, owner


def group_weights(model: Any, owner: NDArray[np.int64]) -> Array:
    """(V, 24) skinning weights: those of Anny's bones, summed over the bones of each SMPL joint."""
    bones, values = model.vertex_bone_indices.numpy(), model.vertex_bone_weights.numpy()
    weights = np.zeros((len(bones), NUM_JOINTS))
    np.add.at(weights, (np.arange(len(bones))[:, None], owner[bones]), values)
    return weights / weights.sum(1, keepdims=True)


def _minimal_rotation(source: Array, target: Array) -> Array:
    """Smallest rotations (N, 3, 3) that turn unit vectors ``source`` (N, 3) to ``target`` (3,)."""
    axis = np.cross(source, target)
    cross = np.zeros((len(source), 3, 3))
    cross[:, 0, 1], cross[:, 0, 2], cross[:, 1, 2] = -axis[:, 2], axis[:, 1], -axis[:, 0]
    cross -= cross.transpose(0, 2, 1)
    return np.eye(3) + cross + cross @ cross / (1.0 + source @ target)[:, None, None]


def rest_rotations(joints: Array) -> Array:
    """Global joint rotations (N, 24, 3, 3) that bring Anny's rest joints (N, 24, 3) to SMPL's T pose."""
    rotations = np.tile(np.eye(3), (len(joints), NUM_JOINTS, 1, 1))
    for sign, side in ((1.0, "left_"), (-1.0, "right_")):
        for start, (end, direction) in _REST_DIRECTION.items():
            j = JOINT_INDEX[side + start]
            bone = joints[:, JOINT_INDEX[side + end]] - joints[:, j]
            target = np.array(direction) * (sign, 1.0, 1.0)
            rotations[:, j] = _minimal_rotation(
                bone / np.linalg.norm(bone, axis=-1, keepdims=True), target / np.linalg.norm(target)
            )
        rotations[:, JOINT_INDEX[side + "hand"]] = rotations[:, JOINT_INDEX[side + "wrist"]]
    return rotations


def to_t_pose(vertices: Array, joints: Array, weights: Array) -> People:
    """Bring rest meshes (N, V, 3) with joints (N, 24, 3) to the T pose.

    Skinning is inverted, not applied: the T mesh is the one that skinning takes back to the artists' mesh
    with its arms lowered, so the pose people are mostly in keeps the shape that was modelled.
    """
    rotations = rest_rotations(joints)
    placed = np.zeros_like(joints)
    for j in range(1, NUM_JOINTS):
        parent = SMPL_PARENTS[j]
        bone = joints[:, j] - joints[:, parent]
        placed[:, j] = placed[:, parent] + np.einsum("nab,nb->na", rotations[:, parent], bone)
    inverse = rotations.transpose(0, 1, 3, 2)
    offset = joints - np.einsum("njab,njb->nja", inverse, placed)
    blend = np.einsum("vj,njab->nvab", weights, inverse)
    shift = np.einsum("vj,nja->nva", weights, offset)
    return People(np.linalg.solve(blend, (vertices - shift)[..., None])[..., 0], placed)


def _to_depthfit_frame(points: Array) -> Array:
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], -1)


class _Sampler:
    """Draws people from Anny's age, height and weight statistics and brings them to the T pose."""

    def __init__(self, model: Any, weights: Array, heads: list[int]) -> None:
        from anny.shape_distribution import SimpleShapeDistribution

        self.model, self.weights, self.heads = model, weights, heads
        self.statistics = SimpleShapeDistribution(model)
        self.rng = np.random.default_rng(SEED)

    def phenotypes(self, count: int, gender: float) -> dict[str, Array]:
        """Adults of one gender (0 male, 1 female), by inverse CDF so that one seed gives one sample."""
        import torch

        s = self.statistics
        years = torch.as_tensor(self.rng.uniform(*ADULT_YEARS, count), dtype=self.model.dtype)
        age = s.morphological_age_mapping.morphological_to_anny_age(years)
        chosen = {"age": age.numpy(), "gender": np.full(count, gender)}
        for label in ("height", "weight", "muscle", "proportions"):
            law = getattr(s, f"{'girls' if gender > 0.5 else 'boys'}_conditional_{label}_distribution")
            a, b = law.get_distribution_params(age)
            chosen[label] = stats.beta.ppf(self.rng.random(count), a.numpy(), b.numpy())
        return chosen

    def wider(self, count: int) -> tuple[dict[str, Array], dict[str, Array]]:
        """Phenotypes beyond the ten shapes' six, and local changes that are the same on both sides."""
        parts = [self.phenotypes(count // 2, 0.0), self.phenotypes(count - count // 2, 1.0)]
        chosen = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
        chosen.update({k: self.rng.beta(2.0, 2.0, count) for k in ("cupsize", "firmness")})
        races = self.rng.dirichlet((1.0, 1.0, 1.0), count)
        chosen.update({k: races[:, i] for i, k in enumerate(("african", "asian", "caucasian"))})
        # "trans" targets move a part off its joint, "out" ones of unpaired parts to one side: not anatomy.
        labels = [k for k in self.model.local_change_labels if "-trans-" not in k and "-angle-" not in k]
        shared = {k: k[2:] if k[:2] in ("l-", "r-") else k for k in labels}
        drawn = {
            k: np.clip(self.rng.normal(0.0, LOCAL_CHANGE_SIGMA, count), -1.0, 1.0)
            for k in dict.fromkeys(shared.values())
        }
        return chosen, {k: drawn[shared[k]] for k in labels}

    def people(self, phenotypes: dict[str, Array], local: dict[str, Array] | None = None) -> People:
        parts = list(self._chunks(phenotypes, local))
        return People(np.concatenate([p.vertices for p in parts]), np.concatenate([p.joints for p in parts]))

    def _chunks(
        self, phenotypes: dict[str, Array], local: dict[str, Array] | None, size: int = 25
    ) -> Iterator[People]:
        import torch

        def cut(values: dict[str, Array], start: int) -> dict[str, torch.Tensor]:
            return {
                k: torch.as_tensor(v[start : start + size], dtype=self.model.dtype) for k, v in values.items()
            }

        for start in range(0, len(phenotypes["age"]), size):
            with torch.no_grad():
                coefficients = self.model.get_phenotype_blendshape_coefficients(
                    **cut(phenotypes, start), local_changes=cut(local, start) if local else None
                )
                rest = self.model.get_rest_model(coefficients)
            yield to_t_pose(
                _to_depthfit_frame(rest["rest_vertices"].numpy()),
                _to_depthfit_frame(rest["rest_bone_heads"].numpy()[:, self.heads]),
                self.weights,
            )


def principal_shapes(vertices: Array, count: int) -> tuple[Array, Array, float]:
    """Mean (V, 3), directions (V, 3, count) scaled to unit variance, and the share of variance they hold.

    Each direction points to the side that makes the body larger, so that its sign is reproducible.
    """
    mean = vertices.mean(0)
    centred = (vertices - mean).reshape(len(vertices), -1)
    left, singular, _ = np.linalg.svd(centred @ centred.T, hermitian=True)
    scale = np.sqrt(len(vertices) - 1)
    directions = (centred.T @ left[:, :count]) / scale
    directions *= np.where(mean.reshape(-1) @ directions < 0, -1.0, 1.0)
    return mean, directions.reshape(*mean.shape, count), float(singular[:count].sum() / singular.sum())


def fit_joint_regressor(people: People, weights: Array, ridge: float = 1e-5) -> sparse.csr_matrix:
    """Weights (24, V), rows summing to one, that give the joints of rest meshes.

    The smallest weights that fit, on the vertices that the joint or its parent moves. They have both signs:
    Anny's joints follow helper geometry inside the body, and non-negative weights on the skin miss some
    by centimetres.
    """
    rows = []
    total = 30.0  # m; makes the sum to one, and so the response to translations, all but a constraint
    for j in range(NUM_JOINTS):
        near = np.flatnonzero(weights[:, [j, max(SMPL_PARENTS[j], 0)]].sum(1) > 0.05)
        offsets = people.vertices[:, near] - people.joints[:, j, None]
        system = np.concatenate(
            [offsets.transpose(0, 2, 1).reshape(-1, len(near)), np.full((1, len(near)), total)]
        )
        wanted = np.zeros(len(system))
        wanted[-1] = total
        solution = system.T @ linalg.solve(
            system @ system.T + ridge * np.eye(len(system)), wanted, assume_a="pos"
        )
        rows.append(sparse.csr_matrix((solution, (np.zeros(len(near), int), near)), (1, len(weights))))
    stacked = sparse.vstack(rows).tocsr()
    return sparse.diags(1.0 / np.asarray(stacked.sum(1)).ravel()) @ stacked


def keypoint_rows(model: Any, template: NDArray[np.floating]) -> tuple[sparse.csr_matrix, Array]:
    """Regressors of ``joints.KEYPOINTS`` from posed vertices (K, V) and posed joints (K, 24)."""
    from anny.keypoints import KeypointsRegressor

    coco = KeypointsRegressor.coco(model)
    known = dict(zip(coco.labels, coco.regression_weights.numpy(), strict=True))
    known["neck"] = (known["left_shoulder"] + known["right_shoulder"]) / 2
    known["mid_hip"] = (known["left_hip"] + known["right_hip"]) / 2
    crown = np.argsort(-template[:, 1], kind="stable")[:8]
    known["head_top"] = np.isin(np.arange(len(template)), crown) / len(crown)
    # The rig's head bone starts where the skull sits on the neck: BODY_25B's upper neck.
    known["upper_neck"] = np.zeros(len(template))
    from_vertices = np.stack([known[name] for name in KEYPOINTS])
    from_vertices /= np.maximum(from_vertices.sum(1, keepdims=True), 1e-9)
    from_joints = np.zeros((len(KEYPOINTS), NUM_JOINTS))
    from_joints[KEYPOINTS.index("upper_neck"), JOINT_INDEX["head"]] = 1.0
    return sparse.csr_matrix(from_vertices), from_joints


def _further_shapes(people: People, space: ShapeSpace, count: int) -> Array:
    """Directions (V, 3, count) of what the ten shapes leave over, scaled to N(0, 1)."""
    left_over = (people.vertices - space.v_template).reshape(len(people.vertices), -1)
    basis = np.linalg.qr(space.shapedirs.reshape(-1, space.shapedirs.shape[-1]))[0]
    left_over = left_over - (left_over @ basis) @ basis.T
    return principal_shapes(left_over.reshape(people.vertices.shape), count)[1]


def _load_anny() -> Any:
    try:
        import anny
    except ImportError as error:
        fix = "Install it with: pip install 'depthfit[body]'"
        raise InputError("depthfit body build", "anny", "the package is not installed", fix) from error
    return anny.Anny(local_changes="all", phenotypes="all")


def build_open_body(path: str | Path = ASSET) -> BuildReport:
    """Rebuild the open body and write it to ``path`` (.npz); one to two minutes on two cores.

    Raises:
        InputError: ``anny`` is not installed, or its rig is not the one this table was made for.
    """
    model = _load_anny()
    heads, owner = bone_groups(list(model.bone_labels))
    weights = group_weights(model, owner)
    sampler = _Sampler(model, weights, heads)
    sampled = {g: sampler.people(sampler.phenotypes(ADULTS_PER_GENDER, v)) for g, v in
               (("male", 0.0), ("female", 1.0))}  # fmt: skip
    both = list(sampled.values())
    sampled["neutral"] = People(
        np.concatenate([p.vertices for p in both]), np.concatenate([p.joints for p in both])
    )
    spaces, explained = {}, {}
    for gender in GENDERS:
        mean, directions, explained[gender] = principal_shapes(sampled[gender].vertices, NUM_SHAPES)
        spaces[gender] = ShapeSpace(mean, directions)
    wider = sampler.people(*sampler.wider(WIDER_ADULTS))
    extra = _further_shapes(wider, spaces["neutral"], NUM_EXTRA_SHAPES)

    regressor = fit_joint_regressor(
        People(
            np.concatenate([p.vertices[::3] for p in (*both, wider)]),
            np.concatenate([p.joints[::3] for p in (*both, wider)]),
        ),
        weights,
    )
    from_vertices, from_joints = keypoint_rows(model, spaces["neutral"].v_template)
    asset = OpenBodyAsset(
        faces=model.get_triangular_faces().numpy(),
        weights=sparse.csr_matrix(weights),
        joint_regressor=regressor,
        keypoint_regressor=from_vertices,
        keypoint_joint=from_joints,
        spaces=spaces,
        extra_shapedirs=extra,
        credit=CREDIT,
    )
    size = write_asset(path, asset)
    adults, others = (_joint_errors_mm(regressor, p) for p in (sampled["neutral"], wider))
    return BuildReport(
        vertices=len(weights),
        faces=len(asset.faces),
        explained=explained,
        joint_error_mm=(float(adults.mean()), float(adults.max())),
        wider_joint_error_mm=(float(others.mean()), float(others.max())),
        stature_m=tuple(_stature(sampled[g]) for g in GENDERS),
        size_bytes=size,
    )


def _joint_errors_mm(regressor: sparse.csr_matrix, people: People) -> Array:
    regressed = np.stack([regressor @ v for v in people.vertices])
    return 1e3 * np.linalg.norm(regressed - people.joints, axis=-1)


def _stature(people: People) -> tuple[float, float]:
    height = np.ptp(people.vertices[..., 1], axis=1)
    return float(height.mean()), float(height.std())
