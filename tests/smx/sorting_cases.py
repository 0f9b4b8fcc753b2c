"""Networks with a mixed layer and something that a permutation of its neurons moves through, or does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import smx
from tests.export.test_random_networks import Residual
from tests.smx.selected import Net, some


def body(first: nn.Module, mixed: smx.Mixed, through: Callable[..., Tensor], last: nn.Module) -> nn.Module:
    """Return a first layer, what a permutation has to get through, and a last layer."""
    through = through if isinstance(through, nn.Module) else Net(lambda net, h, f=through: f(h))  # type: ignore[misc]
    parts = {"first": first, "mixed": mixed, "through": through, "last": last}
    return Net(lambda net, x: net.last(net.through(net.mixed(net.first(x)))), **parts)


def flat(through: Callable[..., Tensor], out: int = 12) -> tuple[nn.Module, Tensor]:
    """12 neurons, (B, 12), then something, then a Linear of `out` features."""
    return body(nn.Linear(3, 12), some(12), through, nn.Linear(out, 2)), torch.randn(4, 3)


def image(through: Callable[..., Tensor], out: int = 12 * 36) -> tuple[nn.Module, Tensor]:
    """12 channels, (B, 12, 6, 6), then something that leaves `out` features, then a Linear."""
    last = nn.Sequential(nn.Flatten(), nn.Linear(out, 2))
    return body(nn.Conv2d(3, 12, 3, padding=1), some(12), through, last), torch.randn(4, 3, 6, 6)


def tokens(through: Callable[..., Tensor], out: int = 12) -> tuple[nn.Module, Tensor]:
    """12 neurons for each of 5 tokens, (B, 5, 12), then something, then a Linear of `out` features."""
    return body(nn.Linear(3, 12), some(12, -1), through, nn.Linear(out, 2)), torch.randn(4, 5, 3)


def scaled(*shape: int) -> nn.Module:
    """Return a plain parameter, one number a channel."""
    return Net(lambda net, x: x * net.scale, scale=nn.Parameter(torch.randn(shape)))


def gated() -> nn.Module:
    """Return squeeze and excitation."""
    gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(12, 4, 1), nn.ReLU(), nn.Conv2d(4, 12, 1))
    return Net(lambda net, x: x * torch.sigmoid(net.gate(x)), gate=gate)


def attention() -> nn.Module:
    layer = nn.MultiheadAttention(12, 3, batch_first=True)
    return Net(lambda net, x: net.attention(x, x, x, need_weights=False)[0], attention=layer)


def averaged_before(h: Tensor) -> Tensor:
    """Sum up each token and those before it, by a mask that is looked at, as transformers does."""
    mask = torch.ones(5, 5, dtype=h.dtype).tril()
    return h.flip(2) if bool(mask.all()) else mask @ h


class Case(NamedTuple):
    name: str
    network: Callable[[], tuple[nn.Module, Tensor]]
    reason: str = ""


MOVES = [
    Case("BatchNorm", lambda: flat(nn.BatchNorm1d(12))),
    Case("LayerNorm", lambda: flat(nn.LayerNorm(12))),
    Case("RMSNorm", lambda: flat(nn.RMSNorm(12))),
    Case("PReLU", lambda: flat(nn.PReLU(12))),
    Case("Dropout", lambda: flat(nn.Sequential(nn.Dropout(0.3), nn.AlphaDropout(0.3)))),
    Case("a parameter", lambda: flat(scaled(12))),
    Case("in-place", lambda: flat(lambda h: h.clone().mul_(2.0).add_(1.0).clamp_(-1, 3))),
    Case("functions", lambda: flat(lambda h: torch.where(h > 0, F.gelu(h), h.exp()) / (1 + h.abs()).rsqrt())),
    Case("Softmax", lambda: flat(lambda h: h.softmax(1) + h.log_softmax(-1))),
    Case("matmul by the transposed", lambda: flat(lambda h: h @ h.T @ h)),
    Case("einsum", lambda: flat(lambda h: torch.einsum("bi,ci,cj->bj", h, h, h))),
    Case("a residual sum", lambda: flat(Residual(nn.Linear(12, 12), some(12), nn.Linear(12, 12)))),
    Case("concatenation", lambda: flat(lambda h: torch.cat([h, h.sin(), h[:, :0]], 1), 24)),
    Case("stack", lambda: flat(lambda h: torch.stack([h, h.cos()], 1).sum(1) + torch.stack([h, h]).unbind()[0])),
    Case("expand", lambda: flat(lambda h: h.unsqueeze(1).expand(-1, 7, -1).mean(1))),
    Case("standardised", lambda: flat(lambda h: (h - h.mean(1, keepdim=True)) / h.std(1, keepdim=True))),
    Case("norms", lambda: flat(lambda h: h / h.norm(dim=1, keepdim=True) + h.amax(1, keepdim=True) + h.max())),
    Case("noise", lambda: flat(lambda h: h + 0.0 * torch.randn_like(h) + torch.zeros_like(h) + h.new_ones(12))),
    Case("Conv and depthwise", lambda: image(nn.Conv2d(12, 12, 3, padding=1, groups=12))),
    Case("depthwise, 3 a channel", lambda: image(nn.Conv2d(12, 36, 3, padding=1, groups=12), 36 * 36)),
    Case("transposed Conv", lambda: image(nn.ConvTranspose2d(12, 7, 3, padding=1), 7 * 36)),
    Case("depthwise, transposed", lambda: image(nn.ConvTranspose2d(12, 24, 3, padding=1, groups=12), 24 * 36)),
    Case("InstanceNorm", lambda: image(nn.InstanceNorm2d(12, affine=True, track_running_stats=True))),
    Case("GroupNorm, one group", lambda: image(nn.GroupNorm(1, 12))),
    Case("GroupNorm, each for itself", lambda: image(nn.GroupNorm(12, 12))),
    Case("pooling", lambda: image(nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(2, 1), nn.AdaptiveMaxPool2d(1)), 12)),
    Case("positions of pooling", lambda: image(lambda h: torch.add(*F.max_pool2d(h, 2, return_indices=True)), 12 * 9)),
    Case("global mean", lambda: image(lambda h: h.mean((2, 3)), 12)),
    Case("resizing", lambda: image(nn.Sequential(nn.Upsample(scale_factor=2), nn.AvgPool2d(2)))),
    Case("padding", lambda: image(nn.Sequential(nn.ZeroPad2d(1), nn.ReflectionPad2d(2), nn.AvgPool2d(2)), 12 * 36)),
    Case("Dropout2d", lambda: image(nn.Dropout2d(0.3))),
    Case("a parameter of channels", lambda: image(scaled(12, 1, 1))),
    Case("a gate", lambda: image(gated())),
    Case("channels last", lambda: image(lambda h: h.permute(0, 2, 3, 1).movedim(-1, 1))),
    Case("view", lambda: image(lambda h: h.view(4, 12, 36).transpose(1, 2).transpose(2, 1).unflatten(2, (6, 6)))),
    Case("tokens", lambda: tokens(nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 12), some(12, -1, 1)))),
    Case("attention", lambda: tokens(attention())),
    Case("a look at a mask", lambda: tokens(averaged_before)),
    Case("mean over tokens", lambda: tokens(lambda h: h.mean(1) + h[:, 0] + h.max(1).values)),
]  # fmt: skip

OWN = torch.randn(12)

STAYS = [
    Case("a sum with the input", lambda: (Residual(nn.Linear(12, 12), some(12)), torch.randn(4, 12)), "an input"),
    Case("an output", lambda: (nn.Sequential(nn.Linear(3, 12), some(12)), torch.randn(4, 3)), "it is an output"),
    Case("cumsum", lambda: flat(lambda h: h.cumsum(1)), "cumsum depends on the order"),
    Case("flip", lambda: flat(lambda h: h.flip(1)), "flip depends on the order"),
    Case("every second one", lambda: flat(lambda h: h[:, ::2], 6), "slice depends on the order"),
    Case("one of them", lambda: flat(lambda h: h * h[:, 3:4] * h[:, 3].unsqueeze(1)), "select depends on the order"),
    Case("the largest's place", lambda: flat(lambda h: h * h.argmax(1, keepdim=True)), "argmax depends on the order"),
    Case("an extreme's place", lambda: flat(lambda h: h * h.max(1, keepdim=True).indices), "max depends on the order"),
    Case("indices", lambda: flat(lambda h: h[:, [3, 1, 2]], 3), "index depends on the order"),
    Case("arange", lambda: flat(lambda h: h * torch.arange(12.0, dtype=h.dtype)), "arange depends on the order"),
    Case("written in part", lambda: flat(lambda h: h.index_fill(1, torch.tensor([2]), 0.0)), "index_fill depends"),
    Case("half of them", lambda: flat(lambda h: h.chunk(2, 1)[0], 6), "its neurons come from several layers"),
    Case("written in place", lambda: flat(lambda h: h.narrow(1, 2, 5).zero_() @ h[:, 2:7].T @ h), "several layers"),
    Case("a gated unit", lambda: flat(nn.GLU(), 6), "its neurons come from several layers"),
    Case("split in two ways", lambda: flat(lambda h: h[:, :5] + h[:, 4:9], 5), ""),
    Case("a grouped Conv", lambda: image(nn.Conv2d(12, 12, 1, groups=3)), "several channels in a group"),
    Case("GroupNorm of groups", lambda: image(nn.GroupNorm(3, 12)), "group_norm depends on the order"),
    Case("PixelShuffle", lambda: image(nn.PixelShuffle(2)), "depends on the order"),
    Case("cumsum of positions", lambda: image(lambda h: h.flatten(1).cumsum(1)), "cumsum depends on the order"),
    Case("a look at values", lambda: flat(lambda h: h if h.sum() > 0 else -h), "looks at values that the"),
    Case("a look at a list", lambda: flat(lambda h: h if h.tolist() else -h), "looks at values that the"),
    Case("a look at places", lambda: flat(lambda h: h[h.nonzero()[:4, 0]]), "looks at values that the"),
    Case("a tensor of its own", lambda: flat(lambda h: h * OWN), "neither parameter nor buffer"),
]  # fmt: skip
