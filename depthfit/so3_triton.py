# mypy: disable-error-code="no-untyped-def"
"""The maps of :mod:`depthfit.so3`, whose docstrings say what they are, as Triton kernels, for CUDA."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_LANES = 128


@triton.jit
def _put(out, at, m0, m1, m2, m3, m4, m5, m6, m7, m8, live):
    tl.store(out + at, m0, mask=live)
    tl.store(out + at + 1, m1, mask=live)
    tl.store(out + at + 2, m2, mask=live)
    tl.store(out + at + 3, m3, mask=live)
    tl.store(out + at + 4, m4, mask=live)
    tl.store(out + at + 5, m5, mask=live)
    tl.store(out + at + 6, m6, mask=live)
    tl.store(out + at + 7, m7, mask=live)
    tl.store(out + at + 8, m8, mask=live)


@triton.jit
def _series_kernel(omega, out, count, KIND: tl.constexpr, LANES: tl.constexpr):
    """I + a K + b K^2 with K the skew matrix of omega."""
    row = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)
    live = row < count
    x = tl.load(omega + row * 3, mask=live, other=0.0)
    y = tl.load(omega + row * 3 + 1, mask=live, other=0.0)
    z = tl.load(omega + row * 3 + 2, mask=live, other=0.0)
    t2 = x * x + y * y + z * z
    if KIND == "exp":
        small = t2 < 1e-8
        safe = tl.where(small, 1.0, t2)
        t = tl.sqrt(safe)
        a = tl.where(small, 1 - t2 / 6, tl.sin(t) / t)
        b = tl.where(small, 0.5 - t2 / 24, (1 - tl.cos(t)) / safe)
    elif KIND == "left_jacobian":
        small = t2 < 1e-4
        safe = tl.where(small, 1.0, t2)
        t = tl.sqrt(safe)
        a = tl.where(small, 0.5 - t2 / 24, (1 - tl.cos(t)) / safe)
        b = tl.where(small, 1.0 / 6 - t2 / 120, (t - tl.sin(t)) / (safe * t))
    else:
        small = t2 < 1e-6
        safe = tl.where(small, 1.0, t2)
        t = tl.sqrt(safe)
        a = tl.zeros_like(t2) + 0.5
        b = 1 / safe - (1 + tl.cos(t)) / (2 * t * tl.maximum(tl.sin(t), 1e-9))
        b = tl.where(small, 1.0 / 12 + t2 / 720, b)
    # K^2 = omega omega^T - |omega|^2 I.
    xy, xz, yz = b * x * y, b * x * z, b * y * z
    _put(
        out, row * 9, 1 - b * (y * y + z * z), xy - a * z, xz + a * y, xy + a * z, 1 - b * (x * x + z * z),
        yz - a * x, xz - a * y, yz + a * x, 1 - b * (x * x + y * y), live,
    )  # fmt: skip


@triton.jit
def _log_kernel(rotation, out, count, LANES: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * LANES + tl.arange(0, LANES)
    live = row < count
    m = rotation + row * 9
    xx, xy = tl.load(m, mask=live, other=1.0), tl.load(m + 1, mask=live, other=0.0)
    xz, yx = tl.load(m + 2, mask=live, other=0.0), tl.load(m + 3, mask=live, other=0.0)
    yy, yz = tl.load(m + 4, mask=live, other=1.0), tl.load(m + 5, mask=live, other=0.0)
    zx, zy = tl.load(m + 6, mask=live, other=0.0), tl.load(m + 7, mask=live, other=0.0)
    zz = tl.load(m + 8, mask=live, other=1.0)
    # Shepperd's method: the quaternion's largest component first.
    trace = xx + yy + zz
    use_w = (trace >= xx) & (trace >= yy) & (trace >= zz)
    use_x = (xx >= yy) & (xx >= zz) & ~use_w
    use_y = (yy >= zz) & ~use_w & ~use_x
    w = tl.where(use_w, 1 + trace, tl.where(use_x, zy - yz, tl.where(use_y, xz - zx, yx - xy)))
    x = tl.where(use_w, zy - yz, tl.where(use_x, 1 + xx - yy - zz, tl.where(use_y, yx + xy, xz + zx)))
    y = tl.where(use_w, xz - zx, tl.where(use_x, yx + xy, tl.where(use_y, 1 - xx + yy - zz, zy + yz)))
    z = tl.where(use_w, yx - xy, tl.where(use_x, xz + zx, tl.where(use_y, zy + yz, 1 - xx - yy + zz)))
    size = tl.sqrt(w * w + x * x + y * y + z * z)
    size = tl.where(w < 0, -size, size)
    w, x, y, z = w / size, x / size, y / size, z / size
    n = tl.sqrt(x * x + y * y + z * z)
    # 2 atan2(n, w) with w >= 0, by the half angle: n / (1 + w) <= 1, where the series of atan converges.
    scale = tl.where(n < 1e-6, 2 / tl.maximum(w, 0.5), 4 * _atan(n / (1 + w)) / tl.maximum(n, 1e-12))
    tl.store(out + row * 3, x * scale, mask=live)
    tl.store(out + row * 3 + 1, y * scale, mask=live)
    tl.store(out + row * 3 + 2, z * scale, mask=live)


@triton.jit
def _atan(t):
    """atan on [0, 1]: atan t = 2 atan(t / (1 + sqrt(1 + t^2))) brings t below tan(pi / 8)."""
    s = t / (1 + tl.sqrt(1 + t * t))
    q = s * s
    p = 1.0 / 11 - q * (1.0 / 13 - q * (1.0 / 15 - q / 17))
    p = 1 - q * (1.0 / 3 - q * (1.0 / 5 - q * (1.0 / 7 - q * (1.0 / 9 - q * p))))
    return 2 * s * p


def _series(omega: Tensor, kind: str) -> Tensor:
    omega = omega.contiguous()
    count = omega.numel() // 3
    out = torch.empty(*omega.shape, 3, dtype=omega.dtype, device=omega.device)
    if count:
        _series_kernel[(triton.cdiv(count, _LANES),)](omega, out, count, KIND=kind, LANES=_LANES)
    return out


def exp(omega: Tensor) -> Tensor:
    return _series(omega, "exp")


def left_jacobian(omega: Tensor) -> Tensor:
    return _series(omega, "left_jacobian")


def right_jacobian_inverse(omega: Tensor) -> Tensor:
    return _series(omega, "right_jacobian_inverse")


def log(rotation: Tensor) -> Tensor:
    rotation = rotation.contiguous()
    count = rotation.numel() // 9
    out = torch.empty(rotation.shape[:-1], dtype=rotation.dtype, device=rotation.device)
    if count:
        _log_kernel[(triton.cdiv(count, _LANES),)](rotation, out, count, LANES=_LANES)
    return out
