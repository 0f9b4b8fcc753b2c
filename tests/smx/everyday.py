"""Networks as people write them who have never heard of SmartMixed."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Conv1D(nn.Module):
    """The linear layer of transformers' GPT-2: addmm on a view, with weights (inputs, outputs)."""

    def __init__(self, outputs: int, inputs: int) -> None:
        super().__init__()
        self.nf = outputs
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / inputs)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        size_out = (*x.size()[:-1], self.nf)
        x = torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight)
        return x.view(size_out)


class NewGELU(nn.Module):
    """The GELU of transformers' GPT-2."""

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


class GPT2(nn.Module):
    """A block of GPT-2 between an embedding and scores."""

    def __init__(self) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(11, 8), nn.Embedding(20, 8)
        self.ln_1, self.ln_2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.c_attn, self.attn_proj = Conv1D(24, 8), Conv1D(8, 8)
        self.c_fc, self.act, self.c_proj = Conv1D(32, 8), NewGELU(), Conv1D(8, 32)
        self.lm_head = nn.Linear(8, 11, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in self.c_attn(self.ln_1(x)).split(8, dim=2))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        x = x + self.attn_proj(mixed)
        return self.lm_head(x + self.c_proj(self.act(self.c_fc(self.ln_2(x)))))  # type: ignore[no-any-return]


class UNet(nn.Module):
    """One level down and up again; images to images from 0 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.middle = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.up, self.last = nn.ConvTranspose2d(6, 4, 2, stride=2), nn.Conv2d(8, 1, 1)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.down(x))
        x = F.relu(self.middle(F.max_pool2d(skip, 2)))
        x = torch.cat([skip, F.relu(self.up(x))], dim=1)
        return self.sigmoid(self.last(x))  # type: ignore[no-any-return]


class SqueezeExcite(nn.Module):
    """Channels that a gate scales, as in EfficientNet."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 8, 3), nn.SiLU()
        self.reduce, self.expand = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.squeeze, self.gate = nn.ReLU(), nn.Sigmoid()
        self.project = nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv(x))
        scale = self.gate(self.expand(self.squeeze(self.reduce(x.mean((2, 3), keepdim=True)))))
        return self.project(x * scale)  # type: ignore[no-any-return]


class Gated(nn.Module):
    """A gated layer, in one of several kinds."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.a, self.b, self.out = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Any:
        match self.kind:
            case "glu":
                return self.out(self.a(x) * torch.sigmoid(self.b(x)))
            case "swiglu":
                return self.out(F.silu(self.a(x)) * self.b(x))
            case "halves":
                value, gate = torch.cat([self.a(x), self.b(x)], -1).chunk(2, -1)
                return self.out(F.hardsigmoid(gate)[..., :] * value)
            case "wavenet":
                return self.out(torch.tanh(self.a(x)) * torch.sigmoid(self.b(x)))
            case "highway":
                gate = torch.sigmoid(self.b(x))
                return self.out(F.relu(self.a(x)) * gate + self.a(x) * (1 - gate))
            case "lerp":
                return self.out(torch.lerp(self.a(x), F.relu(self.a(x)), torch.sigmoid(self.b(x))))
        mask = (x.sum(-1, keepdim=True) > 0).to(x.dtype)
        return self.out(F.relu(self.a(x)) * mask)


class Cell(nn.Module):
    """A cell of an LSTM, by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.ih, self.hh = nn.Linear(3, 16), nn.Linear(4, 16)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = (self.ih(x) + self.hh(h)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class LSTM(nn.Module):
    """The cell, called for each time step; in its own module or in a loop of this forward, which torch.fx unrolls."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.cell, self.fc, self.out = Cell(), nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros((x.shape[0], 4))
        times = range(5 if self.kind == "five" else x.shape[1])
        steps = x.unbind(1) if self.kind == "unbind" else [x[:, t] for t in times]
        for step in steps:
            if self.kind == "rnn":
                h = torch.tanh(self.cell.ih(step)[:, :4] + self.cell.hh(h)[:, :4])
            else:
                h, c = self.cell(step, h, c)
        return self.out(F.relu(self.fc(h)))  # type: ignore[no-any-return]


class Shapes(nn.Module):
    """A forward that reads shapes, branches on them, and calls activations as functions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 24), nn.Linear(24, 24), nn.Linear(24, 2)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        assert x.shape[-1] == 6
        assert len(x.shape) == 3
        x = F.leaky_relu(self.first(x), 0.2)
        x = self.second(x).reshape(*x.shape[:-1], 24)
        if x.shape[1] > 4:
            x = x[:, :4]
        return self.last(self._activated(x, scale))  # type: ignore[no-any-return]

    def _activated(self, x: Tensor, scale: float) -> Tensor:
        z = x.tanh() * scale
        return F.elu(input=z.view(len(z), -1, 24), inplace=True)
