"""One step of training: forward, loss, backward, clipping, Adam; as it is, or replayed as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from smx.layers import selectives
from smx.parameters import parameter_groups
from smx.prices import Prices, load_prices
from smx.pricing import ExpectedPrice
from smx.training.config import DEFAULT_PRICES, TrainConfig
from smx.training.parallel import ALONE, Ranks, Share
from smx.training.protocol import rules
from smx.wrappers import compiled

DTYPES = {"none": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

FALLEN = 0.5
"""Layers that hold choose once the loss of a batch is this part of the first one's."""
OBSERVE_EVERY = 4
"""Moments of candidates change slowly, and observing each batch would make a step of phase 1 a tenth longer."""


def adam(model: nn.Module, config: TrainConfig, state: dict[str, object] | None = None) -> torch.optim.Optimizer:
    """Make the optimiser of a phase, with a saved state but for its learning rates, which the schedule sets.

    For a CUDA graph, which would keep a number for ever, the rates are tensors on the device.
    """
    device = next(model.parameters()).device
    groups = parameter_groups(model, lr=config.lr, logits_lr=config.lr * config.logits_lr or None)
    rates = [group["lr"] for group in groups]
    optimizer = torch.optim.Adam(groups, fused=True, capturable=config.cuda_graphs)
    if state is not None:
        optimizer.load_state_dict(state)
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["initial_lr"] = rate
        group["lr"] = torch.tensor(rate, device=device) if config.cuda_graphs else rate
    return optimizer


def period(model: nn.Module, config: TrainConfig) -> int:
    """Return after how many steps they do the same again; a compiled or captured step is always the same."""
    observes = any(layer.moments is not None for layer in selectives(model))
    return OBSERVE_EVERY if observes and not (config.compile or config.cuda_graphs) else 1


class Tally:
    """Sums of the loss and of right answers, kept on the device, so that no step waits for them."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.loss = torch.zeros((), dtype=dtype, device=device)
        self.right = torch.zeros((), dtype=torch.int64, device=device)

    def reset(self) -> None:
        """Begin again at 0."""
        self.loss.zero_()
        self.right.zero_()

    def add(self, loss: Tensor, outputs: Tensor, y: Tensor, share: Share) -> None:
        """Add a share of a batch: the loss of outputs (b, C) for the labels y (b,)."""
        right = outputs.argmax(1) == y
        self.loss += loss.to(self.loss.dtype) * share.examples
        self.right += (right if share.weights is None else right & (share.weights > 0)).sum()

    def means(self, examples: int, ranks: Ranks) -> tuple[float, float]:
        """Return the mean loss and the accuracy, for the number of examples of all ranks."""
        loss, right = ranks.sum(self.loss, self.right)
        return loss / examples, right / examples


class Step:
    """One step of training when it is called.

    Attributes:
        scaler: scales the loss in float16, and does nothing otherwise.
        tally: the sums of loss and right answers since its last `reset`.
        taken: the steps since the epoch began. Layers that match their candidates observe every `OBSERVE_EVERY`-th.
    """

    def __init__(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, config: TrainConfig, phase: int, ranks: Ranks = ALONE
    ) -> None:
        device = next(model.parameters()).device
        self.model, self.optimizer, self.config, self.phase = model, optimizer, config, phase
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.amp == "float16")
        self.tally = Tally(device, torch.float32)
        self.taken = 0
        self._ranks = ranks
        self._held_loss: float | None = None
        self._layers = selectives(model)
        self._observers = [layer for layer in self._layers if layer.moments is not None]
        self._period = period(model, config)
        self._price = _expected_price(model, config) if phase == 1 and config.price_weight else None
        network = ranks.wrap(model)
        self._network = compiled(network) if config.compile else network
        self._graph = _Graph(self._step) if config.cuda_graphs else None

    def __call__(self, x: Tensor, y: Tensor, share: Share) -> None:
        """Take a step on the examples of a share: x (b, *) and their labels y (b,), on the device."""
        if self._graph is not None and len(y) == self.config.batch_size and not self._holds:
            self._graph(x, y, share)
        else:
            self._step(x, y, share)

    def hold(self, value: bool) -> None:
        """Let the layers keep their first activations until the loss is `FALLEN` of the next step's; or choose."""
        self._held_loss = None
        for layer in self._layers:
            layer.holds = value

    @property
    def _holds(self) -> bool:
        return any(layer.holds for layer in self._layers)

    def _let_go(self, loss: Tensor) -> None:
        """Let the layers choose if the loss, of all ranks together, has fallen."""
        (now,) = self._ranks.sum(loss)
        if self._held_loss is None:
            self._held_loss = now
        elif now <= FALLEN * self._held_loss:
            self.hold(False)

    def forget_graph(self) -> None:
        """Capture the step again at the next call, because a number in it, such as the temperature, has changed."""
        if self._graph is not None:
            self._graph = _Graph(self._step)

    def _step(self, x: Tensor, y: Tensor, share: Share) -> None:
        protocol = rules(self.config)
        for layer in self._observers:
            layer.observes = self.taken % self._period == 0
        self.taken += 1
        with torch.autocast(x.device.type, DTYPES[self.config.amp], enabled=self.config.amp != "none"):
            logits = self._network(x)
        outputs = protocol.outputs(logits.float(), self.phase)
        loss = protocol.loss(outputs, y, share.weights)
        beside = self._beside()
        whole = loss if beside is None else loss + beside
        self.optimizer.zero_grad()
        self.scaler.scale(whole).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.tally.add(loss.detach(), outputs.detach(), y, share)
        if self._holds:
            self._let_go(loss.detach())

    def _beside(self) -> Tensor | None:
        """Return what the loss gains: the price; or, while layers hold, a 0 whose gradient the other ranks wait for."""
        if held := [layer.preferences.sum() for layer in self._layers if layer.holds]:
            return 0.0 * torch.stack(held).sum()
        return None if self._price is None else self.config.price_weight * self._price()


def prices_of(config: TrainConfig) -> Prices:
    """Return the prices that a run heeds.

    Raises:
        InputError: there is no such file, or it is no price file.
    """
    return load_prices(None if config.price == DEFAULT_PRICES else config.price)


def _expected_price(model: nn.Module, config: TrainConfig) -> ExpectedPrice:
    names = list(dict.fromkeys(activation.name for layer in selectives(model) for activation in layer.pool))
    prices = prices_of(config).relative(names)
    return ExpectedPrice(model, dict(zip(names, prices, strict=True)))


class _Graph:
    """Replays a step on whole batches, all of one shape, after a warm-up on a side stream.

    Source: PyTorch's notes on CUDA graphs, "Whole-network capture". Every call is one step of training: so are the
    calls of the warm-up, and the capture, which computes nothing, is replayed at once.
    """

    WARM_UP = 3

    def __init__(self, step: Callable[[Tensor, Tensor, Share], None]) -> None:
        self.step = step
        self.side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self.warm = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, x: Tensor, y: Tensor, share: Share) -> None:
        if self.warm < self.WARM_UP:
            self.warm += 1
            self.side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.side):
                self.step(x, y, share)
            torch.cuda.current_stream().wait_stream(self.side)
            return
        if self.graph is None:
            self.x, self.y, self.graph = x.clone(), y.clone(), torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.step(self.x, self.y, share)
        self.x.copy_(x)
        self.y.copy_(y)
        self.graph.replay()
