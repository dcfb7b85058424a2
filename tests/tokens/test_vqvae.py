"""The network against torch's own layers and the released file's format."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import interpolate

from depthfit.tokens.jacobian import decoder_vjp
from depthfit.tokens.layers import _cached_tables, nearest_index, resize_transpose
from depthfit.tokens.vqvae import Tokenizer


def official_keys(width: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes as TokenHMR's file has them."""
    keys: dict[str, tuple[int, ...]] = {"quantizer.codebook": (2048, 256)}

    def conv(name: str, out: int, into: int, taps: int) -> None:
        keys[f"{name}.weight"], keys[f"{name}.bias"] = (out, into, taps), (out,)

    conv("encoder.encoder.0", width, 6, 3)
    conv("encoder.encoder.14.0", width, width, 4)
    conv("encoder.encoder.15", 256, width, 3)
    conv("decoder.decoder.0", width, 256, 3)
    conv("decoder.decoder.14.1", width, width, 3)
    conv("decoder.decoder.15", 6, width, 3)
    for part in ("encoder.encoder", "decoder.decoder"):
        for index in (3, 6, 9, 12):
            conv(f"{part}.{index}", width, width, 3)
    for stack in ("encoder.encoder.14.1", "decoder.decoder.14.0"):
        for block in (0, 1):
            conv(f"{stack}.model.{block}.conv1", width, width, 3)
            conv(f"{stack}.model.{block}.conv2", width, width, 1)
    return keys


def reference_encode(t: Tokenizer, pose6d: torch.Tensor) -> torch.Tensor:
    layers = t.encoder.encoder
    x = interpolate(layers["0"](pose6d.mT).relu(), size=40, mode="nearest")
    x = layers["3"](x).relu()
    for name in ("6", "9", "12"):
        x = layers[name](interpolate(x, scale_factor=2, mode="nearest")).relu()
    x = layers["14"][0](x)
    for block in layers["14"][1].model:
        x = x + block.conv2(block.conv1(x.relu()).relu())
    return layers["15"](x).mT


def reference_decode(t: Tokenizer, z: torch.Tensor) -> torch.Tensor:
    layers = t.decoder.decoder
    x = layers["0"](z.mT).relu()
    for name, length in zip(("3", "6", "9", "12"), (125, 90, 55, 21), strict=True):
        x = layers[name](interpolate(x, size=length, mode="nearest")).relu()
    for block in layers["14"][0].model:
        x = x + block.conv2(block.conv1(x.relu()).relu())
    return layers["15"](layers["14"][1](x)).mT


@pytest.fixture
def tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    return Tokenizer(24).double()


def test_state_dict_is_the_official_one() -> None:
    state = Tokenizer(512).state_dict()
    assert {k: tuple(v.shape) for k, v in state.items()} == official_keys(512)
    assert len(state) == 45
    assert sum(v.numel() for v in state.values()) == 13_660_422


def test_dilations_and_lengths() -> None:
    t = Tokenizer(8)
    for stack in (t.encoder.encoder["14"][1], t.decoder.decoder["14"][0]):
        assert [block.conv1.dilation[0] for block in stack.model] == [3, 1]
    assert nearest_index(21, 40)[:5] == [0, 0, 1, 1, 2]


def test_layers_equal_torch_modules_with_gradients(tokenizer: Tokenizer) -> None:
    pose = torch.randn(2, 21, 6, dtype=torch.float64, requires_grad=True)
    z = torch.randn(2, 160, 256, dtype=torch.float64, requires_grad=True)
    pairs = [
        (tokenizer.encode(pose), reference_encode(tokenizer, pose), pose),
        (tokenizer.decode(z), reference_decode(tokenizer, z), z),
    ]
    for found, expected, given in pairs:
        assert (found - expected).abs().max() < 1e-12
        weight = torch.randn_like(found)
        gradients = [torch.autograd.grad((out * weight).sum(), given)[0] for out in (found, expected)]
        assert (gradients[0] - gradients[1]).abs().max() < 1e-12


def test_quantise_lookup_and_soft(tokenizer: Tokenizer) -> None:
    tokenizer.codebook.normal_()
    codes = torch.randint(2048, (3, 160))
    z = tokenizer.lookup(codes)
    assert torch.equal(tokenizer.quantise(z + 0.01), codes)
    probabilities = torch.nn.functional.one_hot(codes, 2048).double()
    assert (tokenizer.soft(probabilities) - z).abs().max() < 1e-12
    mixed = tokenizer.soft((probabilities + probabilities.roll(1, 0)) / 2)
    assert (mixed - (z + z.roll(1, 0)) / 2).abs().max() < 1e-12


def test_forward_keeps_latents_where_asked_and_passes_gradients_straight_through(
    tokenizer: Tokenizer,
) -> None:
    tokenizer.codebook.normal_()
    pose = torch.randn(2, 21, 6, dtype=torch.float64)
    keep = torch.tensor([True, False])
    tokenizer.float()
    out = tokenizer(pose.float(), keep)
    latents = tokenizer.encode(pose.float())
    z = torch.stack([latents[0], tokenizer.lookup(out.codes[1])])
    assert (out.pose6d - tokenizer.decode(z)).abs().max() < 1e-5
    (gradient,) = torch.autograd.grad(out.pose6d[1].sum(), out.latents)
    assert gradient[1].abs().max() > 0


def test_shapes_are_checked(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=r"expected \(N, 21, 6\)"):
        tokenizer.encode(torch.zeros(1, 22, 6))
    with pytest.raises(ValueError, match=r"expected \(N, 160, 256\)"):
        tokenizer.decode(torch.zeros(160, 256))


def test_decoder_vjp_equals_autograd_for_any_cotangents(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    z = torch.randn(3, 160, 256, dtype=torch.float64, requires_grad=True)
    cotangents = torch.randn(3, 4, 21, 6, dtype=torch.float64)
    monkeypatch.setattr("depthfit.tokens.jacobian.CHUNK_BYTES", 1)  # one person a chunk
    pose, pulled = decoder_vjp(tokenizer.requires_grad_(False), z.detach(), cotangents)
    expected = tokenizer.decode(z)
    assert (pose - expected).abs().max() < 1e-12
    for m in range(4):
        (gradient,) = torch.autograd.grad((expected * cotangents[:, m]).sum(), z, retain_graph=True)
        assert (pulled[:, m] - gradient).abs().max() < 1e-12


def test_decoder_vjp_matches_functorch(tokenizer: Tokenizer) -> None:
    z = torch.randn(1, 160, 256, dtype=torch.float64)
    _, pull = torch.func.vjp(tokenizer.decode, z)
    cotangents = torch.randn(3, 1, 21, 6, dtype=torch.float64)
    expected = torch.stack([pull(c)[0] for c in cotangents], 1)
    _, pulled = decoder_vjp(tokenizer, z, cotangents.transpose(0, 1))
    assert (pulled - expected).abs().max() < 1e-12


def test_resize_tables_made_in_inference_mode_serve_autograd_too() -> None:
    _cached_tables.cache_clear()
    with torch.inference_mode():
        resize_transpose(torch.randn(1, 12, 4), 5, 12)
    gradient = torch.randn(1, 12, 4, requires_grad=True)
    resize_transpose(gradient, 5, 12).sum().backward()
    assert gradient.grad is not None
    assert torch.allclose(gradient.grad, torch.ones_like(gradient))
