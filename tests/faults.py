"""Kinds of faults, to be planted in what was exported of a small network, and where each must be found.

A fault sits in the file, or in PyTorch's network where the file is older than that. Neurons are counted as in PyTorch;
where they stand in the file is found by comparing weights, not from the file's own metadata.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from smx.layers import Mixed
from smx.models import mlp
from smx.paper import PAPER_POOL
from smx.runtime.parity.locate import ACTIVATION, BEFORE, OUTPUT

Array = NDArray[Any]
LAYOUTS = ("scatter", "sorted")
HINGES = ("relu", "leaky_relu", "elu", "selu")
"""The activations that are computed together, see `smx.hinges`."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch run on one thread, which is fastest for many small networks."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# --- the networks


def choice(neurons: int, pool: tuple[str, ...], seed: int) -> Mixed:
    """Return a layer in which every activation occurs, in random order."""
    order = torch.randperm(neurons, generator=torch.Generator().manual_seed(seed))
    return Mixed(order % len(pool), pool)


def dense() -> nn.Module:
    """Return a multilayer perceptron; its second layer has GELU, too."""
    torch.manual_seed(0)
    sizes = (20, 24, 16, 16, 5)
    return mlp(sizes, lambda i: choice(sizes[i], (*PAPER_POOL, *(["gelu"] if i == 2 else [])), i)).eval()


def convolutional() -> nn.Module:
    """Return a network with BatchNorm, padding and pooling."""
    torch.manual_seed(0)

    def block(conv: nn.Conv2d, seed: int) -> nn.Module:
        norm = nn.BatchNorm2d(conv.out_channels)
        for values in (norm.running_mean, norm.weight, norm.bias):
            values.data.normal_(1.0, 0.2)  # type: ignore[union-attr]
        norm.running_var.uniform_(0.05, 0.2)  # type: ignore[union-attr]
        return nn.Sequential(OrderedDict(conv=conv, norm=norm, activation=choice(conv.out_channels, PAPER_POOL, seed)))

    parts = OrderedDict(
        block1=block(nn.Conv2d(2, 8, 3), 1),
        block2=block(nn.Conv2d(8, 12, 3, stride=2, padding=1), 2),
        pool=nn.AvgPool2d(3),
        flatten=nn.Flatten(),
        output=nn.Linear(12, 5),
    )
    return nn.Sequential(parts).eval()


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dense": (dense, (20,)),
    "convolutional": (convolutional, (2, 8, 8)),
}
"""The networks, with the shape of their examples."""


@dataclass(frozen=True)
class Export:
    """A network, and what was exported of it; copies are changed.

    Attributes:
        module: in `eval()`.
        proto: what was exported.
        order: by the names of the layers, which neuron stands at each position in the file.
    """

    module: nn.Module
    proto: onnx.ModelProto
    order: dict[str, NDArray[np.int64]]

    @classmethod
    def of(cls, module: nn.Module, proto: onnx.ModelProto) -> Export:
        """Find the neurons again by their weights, which the exporter permutes and scales a little."""
        order: dict[str, NDArray[np.int64]] = {}
        written = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
        columns: NDArray[np.int64] | slice = slice(None)
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                found, known = (
                    w.reshape(len(w), -1) / np.linalg.norm(w.reshape(len(w), -1), axis=1, keepdims=True)
                    for w in (written[f"{name}.weight"], layer.weight.detach().numpy()[:, columns])
                )
                columns = order[name.split(".")[0]] = (found @ known.T).argmax(1)
        return cls(module, proto, order)

    def copy(self) -> Export:
        """Return a copy to plant a fault in, without the notes of shapes, which may no longer be right."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        proto.graph.ClearField("value_info")
        return Export(copy.deepcopy(self.module), proto, self.order)

    def having(self, layer: str, *activations: str) -> list[int]:
        """Return the neurons of a layer that have one of these activations."""
        mixed = self.module.get_submodule(f"{layer}.activation")
        assert isinstance(mixed, Mixed)
        return [n for n, k in enumerate(mixed.choice.tolist()) if mixed.pool[k].name in activations]

    def at(self, layer: str, neurons: Iterable[int]) -> list[int]:
        """Return where neurons stand in the file."""
        return [self.order[layer].tolist().index(neuron) for neuron in neurons]

    @contextmanager
    def edited(self, name: str) -> Iterator[Array]:
        """Give the values of the initializer whose name begins and ends so ("layer1...bias"), to be changed."""
        start, _, end = name.partition("...")
        tensor = next(t for t in self.proto.graph.initializer if t.name.startswith(start) and t.name.endswith(end))
        values = numpy_helper.to_array(tensor).copy()
        yield values
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    @property
    def literal(self) -> bool:
        """Whether the layout is `scatter`: an operator for each activation, nothing moved into the weights."""
        return any(node.op_type == "ScatterElements" for node in self.proto.graph.node)

    @property
    def tanh(self) -> tuple[str, ...]:
        """The activations that are computed by Tanh."""
        return ("tanh",) if self.literal else ("tanh", "sigmoid")

    def set_hinges(self, layer: str, number: str, neurons: Iterable[int], value: float) -> None:
        """Set one of the numbers of a hinge; where they don't stand for all neurons, it is for the last ones."""
        with self.edited(f"{layer}/activation/...{number}") as numbers:
            start = len(self.order[layer]) - numbers.size
            numbers.reshape(-1)[[position - start for position in self.at(layer, neurons)]] = value

    def z(self, layer: str) -> str:
        """Return the name of a layer's pre-activations."""
        return self.node("Gemm", layer).output[0]

    def node(self, type: str, scope: str) -> onnx.NodeProto:
        """Return the first node of a type in a scope."""
        return next(n for n in self.proto.graph.node if n.op_type == type and n.name.startswith(scope))

    def insert(self, value: str, type: str, *others: str, **attributes: Any) -> None:
        """Let a node change a value before it is used."""
        nodes = self.proto.graph.node
        index, producer = next((i, n) for i, n in enumerate(nodes) if value in n.output)
        before = f"{value}/{len(nodes)}"
        producer.output[list(producer.output).index(value)] = before
        nodes.insert(index + 1, helper.make_node(type, [before, *others], [value], name=before, **attributes))

    def set_attribute(self, type: str, scope: str, name: str, value: Any) -> None:
        """Set an attribute of the first node of a type in a scope."""
        node = self.node(type, scope)
        kept = [attribute for attribute in node.attribute if attribute.name != name]
        node.ClearField("attribute")
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    def constant(self, name: str, values: Any) -> str:
        """Add an initializer and return its name."""
        self.proto.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name


class Planted(NamedTuple):
    """Where a fault must be found: a layer or an output, the part, and the neurons; None where it may be any."""

    layer: str
    part: str
    neurons: frozenset[int] | None = None


class Kind(NamedTuple):
    """A kind of fault: what it is, where it can occur, and a function that plants it."""

    name: str
    what: str
    network: str
    layouts: tuple[str, ...]
    plant: Callable[[Export], Planted]


KINDS: dict[str, Kind] = {}


def kind(
    network: str = "dense", layouts: tuple[str, ...] = LAYOUTS
) -> Callable[[Callable[[Export], Planted]], Callable[[Export], Planted]]:
    """Enter a function into the catalogue, by its name; its docstring says what the fault is."""

    def enter(plant: Callable[[Export], Planted]) -> Callable[[Export], Planted]:
        KINDS[plant.__name__] = Kind(plant.__name__, plant.__doc__ or "", network, layouts, plant)
        return plant

    return enter


def before(layer: str, *neurons: int) -> Planted:
    """Say that the pre-activations of a layer are wrong; of any neurons, if none are named."""
    return Planted(f"{layer}.activation", BEFORE, frozenset(neurons) or None)


def activation(layer: str, *neurons: int) -> Planted:
    """Say that the activations of some neurons are wrong."""
    return Planted(f"{layer}.activation", ACTIVATION, frozenset(neurons) or None)


def output(*neurons: int) -> Planted:
    """Say that the outputs are wrong; any of them, if none are named."""
    return Planted("output", OUTPUT, frozenset(neurons) or None)


# --- weights and biases


@kind()
def swapped_neurons(model: Export) -> Planted:
    """Two neurons have changed places, weights and bias."""
    rows = model.at("layer2", (3, 9))
    for part in ("weight", "bias"):
        with model.edited(f"layer2.linear.{part}") as values:
            values[rows] = values[rows[::-1]]
    return before("layer2", 3, 9)


@kind()
def swapped_columns(model: Export) -> Planted:
    """A layer takes two neurons for each other."""
    columns = model.at("layer2", (1, 12))
    with model.edited("layer3.linear.weight") as weight:
        weight[:, columns] = weight[:, columns[::-1]]
    return before("layer3")


@kind()
def lost_bias_of_one_neuron(model: Export) -> Planted:
    """A bias is 0."""
    with model.edited("layer1.linear.bias") as bias:
        bias[model.at("layer1", [7])] = 0
    return before("layer1", 7)


@kind()
def lost_bias_of_a_layer(model: Export) -> Planted:
    """All biases are 0."""
    with model.edited("layer3.linear.bias") as bias:
        bias[:] = 0
    return before("layer3")


@kind()
def negated_bias(model: Export) -> Planted:
    """A bias has the wrong sign."""
    with model.edited("output.bias") as bias:
        bias[2] *= -1
    return output(2)


@kind()
def zeroed_weight(model: Export) -> Planted:
    """One weight is 0."""
    with model.edited("layer2.linear.weight") as weight:
        weight[model.at("layer2", [5]), 4] = 0
    return before("layer2", 5)


@kind()
def negated_weight(model: Export) -> Planted:
    """One weight has the wrong sign."""
    with model.edited("layer3.linear.weight") as weight:
        weight[model.at("layer3", [14]), 0] *= -1
    return before("layer3", 14)


@kind()
def scaled_weight(model: Export) -> Planted:
    """One weight, the largest of its neuron, is larger by 0.1 %."""
    (row,) = model.at("layer3", [6])
    with model.edited("layer3.linear.weight") as weight:
        weight[row, np.abs(weight[row]).argmax()] *= 1.001
    return before("layer3", 6)


@kind()
def transposed_weight(model: Export) -> Planted:
    """A square matrix is transposed."""
    with model.edited("layer3.linear.weight") as weight:
        weight[:] = weight.T.copy()
    return before("layer3")


@kind()
def rolled_rows(model: Export) -> Planted:
    """Each neuron has the weights of the one before it."""
    with model.edited("layer2.linear.weight") as weight:
        weight[:] = np.roll(weight, 1, 0)
    return before("layer2")


@kind()
def float16_weights(model: Export) -> Planted:
    """The weights of one layer are rounded to float16."""
    with model.edited("layer2.linear.weight") as weight:
        weight[:] = weight.astype(np.float16)
    return before("layer2")


@kind()
def bfloat16_weights(model: Export) -> Planted:
    """The weights of one layer are cut to bfloat16."""
    with model.edited("layer1.linear.weight") as weight:
        weight.view(np.uint32)[:] &= 0xFFFF0000
    return before("layer1")


@kind()
def int8_row(model: Export) -> Planted:
    """The weights of one neuron are rounded to int8."""
    (row,) = model.at("layer3", [1])
    with model.edited("layer3.linear.weight") as weight:
        step = np.abs(weight[row]).max() / 127
        weight[row] = np.round(weight[row] / step) * step
    return before("layer3", 1)


@kind()
def nan_weight(model: Export) -> Planted:
    """One weight is NaN."""
    with model.edited("layer2.linear.weight") as weight:
        weight[model.at("layer2", [10]), 3] = np.nan
    return before("layer2", 10)


@kind()
def infinite_weight(model: Export) -> Planted:
    """One weight is infinite."""
    with model.edited("layer1.linear.weight") as weight:
        weight[model.at("layer1", [20]), 3] = np.inf
    return before("layer1", 20)


@kind()
def stale_neuron(model: Export) -> Planted:
    """PyTorch has trained one neuron further."""
    linear = model.module.get_submodule("layer2.linear")
    assert isinstance(linear, nn.Linear)
    linear.weight.data[11] += 0.01
    return before("layer2", 11)


@kind()
def swapped_outputs(model: Export) -> Planted:
    """Two classes have changed places."""
    for part in ("weight", "bias"):
        with model.edited(f"output.{part}") as values:
            values[[0, 3]] = values[[3, 0]]
    return output(0, 3)


# --- what moved from one layer into the next


@kind(layouts=("sorted",))
def lost_half_of_sigmoid(model: Export) -> Planted:
    """Sigmoid is computed as tanh, but what uses it lacks the 1/2 that was to be added."""
    columns = model.at("layer1", model.having("layer1", "sigmoid"))
    with model.edited("layer2.linear.weight") as weight, model.edited("layer2.linear.bias") as bias:
        bias -= weight[:, columns].sum(1)
    return before("layer2")


@kind(layouts=("sorted",))
def lost_constant_of_elu(model: Export) -> Planted:
    """ELU is computed without its -1, and what uses it does not subtract it."""
    columns = model.at("layer3", model.having("layer3", "elu"))
    with model.edited("output.weight") as weight, model.edited("output.bias") as bias:
        bias += weight[:, columns].sum(1)
    return output()


@kind(layouts=("sorted",))
def lost_scale_of_selu(model: Export) -> Planted:
    """SELU is computed without its factor, and what uses it does not multiply by it."""
    columns = model.at("layer2", model.having("layer2", "selu"))
    with model.edited("layer3.linear.weight") as weight:
        weight[:, columns] /= 1.0507009873554805
    return before("layer3")


@kind(layouts=("sorted",))
def unhalved_sigmoid(model: Export) -> Planted:
    """Sigmoid is computed as tanh, but of z instead of z / 2."""
    neurons = model.having("layer3", "sigmoid")
    for part in ("weight", "bias"):
        with model.edited(f"layer3.linear.{part}") as values:
            values[model.at("layer3", neurons)] *= 2
    return before("layer3", *neurons)


@kind(layouts=("sorted",))
def unpermuted_columns(model: Export) -> Planted:
    """What uses a sorted layer expects PyTorch's order."""
    with model.edited("layer3.linear.weight") as weight:
        weight[:] = weight[:, np.argsort(model.order["layer2"])]
    return before("layer3")


@kind(layouts=("sorted",))
def unpermuted_bias(model: Export) -> Planted:
    """The weights of a layer are sorted, its biases are not."""
    with model.edited("layer1.linear.bias") as bias:
        bias[:] = bias[np.argsort(model.order["layer1"])]
    return before("layer1")


# --- activations


@kind()
def doubled_slope_of_leaky_relu(model: Export) -> Planted:
    """Leaky ReLU has the slope 0.02 instead of 0.01."""
    neurons = model.having("layer1", "leaky_relu")
    if model.literal:
        model.set_attribute("LeakyRelu", "layer1", "alpha", 0.02)
    else:
        model.set_hinges("layer1", "negative", neurons, 0.02)
    return activation("layer1", *neurons)


@kind(layouts=("sorted",))
def leaky_relu_as_relu(model: Export) -> Planted:
    """One Leaky ReLU is a ReLU."""
    neuron = model.having("layer3", "leaky_relu")[1]
    model.set_hinges("layer3", "negative", [neuron], 0.0)
    return activation("layer3", neuron)


@kind(layouts=("sorted",))
def relu_as_identity(model: Export) -> Planted:
    """One ReLU lets negative values pass."""
    neuron = model.having("layer2", "relu")[1]
    model.set_hinges("layer2", "negative", [neuron], 1.0)
    return activation("layer2", neuron)


@kind()
def relu_as_relu6(model: Export) -> Planted:
    """ReLU ends at 6; in the layout `sorted` so do the lines of Leaky ReLU, ELU and SELU."""
    six = model.constant("six", np.float32(6))
    model.insert(model.node("Relu" if model.literal else "Max", "layer1/activation").output[0], "Clip", "", six)
    return activation("layer1", *model.having("layer1", *(["relu"] if model.literal else HINGES)))


@kind()
def larger_alpha_of_elu(model: Export) -> Planted:
    """One ELU has the alpha 1.1 instead of 1; in the layout `scatter` all of a layer have."""
    neurons = model.having("layer3", "elu")
    if model.literal:
        model.set_attribute("Elu", "layer3", "alpha", 1.1)
    else:
        model.set_hinges("layer3", "exponential", neurons[:1], 1.1)
    return activation("layer3", *(neurons if model.literal else neurons[:1]))


@kind(layouts=("sorted",))
def selu_as_elu(model: Export) -> Planted:
    """One SELU has the exponential of an ELU."""
    neuron = model.having("layer2", "selu")[0]
    model.set_hinges("layer2", "exponential", [neuron], 1.0)
    return activation("layer2", neuron)


@kind(layouts=("sorted",))
def unbounded_exponential(model: Export) -> Planted:
    """ELU and SELU take the exponential of positive values, too."""
    model.node("Exp", "layer2/activation").input[0] = model.node("Clip", "layer2/activation").input[0]
    return activation("layer2", *model.having("layer2", "elu", "selu"))


@kind()
def tanh_as_sigmoid(model: Export) -> Planted:
    """Tanh, and in the layout `sorted` the sigmoid that is computed by it, are a sigmoid."""
    model.node("Tanh", "layer1/activation").op_type = "Sigmoid"
    return activation("layer1", *model.having("layer1", *model.tanh))


@kind()
def tanh_twice(model: Export) -> Planted:
    """Tanh is applied twice."""
    model.insert(model.node("Tanh", "layer3/activation").output[0], "Tanh")
    return activation("layer3", *model.having("layer3", *model.tanh))


@kind()
def erf_as_tanh(model: Export) -> Planted:
    """GELU takes tanh for the error function."""
    model.node("Erf", "layer2/activation/gelu").op_type = "Tanh"
    return activation("layer2", *model.having("layer2", "gelu"))


@kind()
def wrong_choice(model: Export) -> Planted:
    """PyTorch has another activation for one neuron."""
    mixed = model.module.get_submodule("layer2.activation")
    assert isinstance(mixed, Mixed)
    neuron = model.having("layer2", "relu")[0]
    other = mixed.choice.clone()
    other[neuron] = PAPER_POOL.index("tanh")
    model.module.set_submodule("layer2.activation", Mixed(other, mixed.pool))
    return activation("layer2", neuron)


# --- indices


@kind(layouts=("scatter",))
def scattered_one_too_far(model: Export) -> Planted:
    """One neuron of the last group is written where the next one belongs."""
    with model.edited("layer1/activation/selu/neurons_row") as row:
        there = set(row.flat)
        k = next(k for k, n in enumerate(row.flat) if n + 1 not in there and n + 1 < len(model.order["layer1"]))
        row.flat[k] += 1
        neuron = int(row.flat[k])
    return activation("layer1", neuron - 1, neuron)


@kind(layouts=("scatter",))
def swapped_scatter_indices(model: Export) -> Planted:
    """Two neurons of one group are written in each other's place."""
    with model.edited("layer2/activation/tanh/neurons_row") as row:
        row.flat[[0, -1]] = row.flat[[-1, 0]]
        return activation("layer2", int(row.flat[0]), int(row.flat[-1]))


@kind(layouts=("scatter",))
def gathered_one_too_far(model: Export) -> Planted:
    """One activation is computed from the next neuron's value."""
    with model.edited("layer3/activation/relu/neurons") as neurons:
        neuron = int(neurons[0])
        neurons[0] += 1
    return activation("layer3", neuron)


@kind(layouts=("scatter",))
def lost_scatter(model: Export) -> Planted:
    """A group is never written: its neurons keep their pre-activations."""
    lost = model.node("ScatterElements", "layer2/activation/elu")
    for node in model.proto.graph.node:
        node.input[:] = [lost.input[0] if name == lost.output[0] else name for name in node.input]
    model.proto.graph.node.remove(lost)
    return activation("layer2", *model.having("layer2", "elu"))


@kind(layouts=("sorted",))
def split_one_too_early(model: Export) -> Planted:
    """The first neuron of a group is taken for one more of the group before it."""
    names = ["sigmoid", "tanh"]
    neurons = [n for n in model.order["layer2"].tolist() if n in model.having("layer2", *names)]
    with model.edited("layer2/activation/...sizes") as sizes:
        sizes[:2] += [-1, 1]
    return activation("layer2", neurons[-1])


@kind(layouts=("sorted",))
def swapped_parts(model: Export) -> Planted:
    """Two groups are computed by each other's activation."""
    split = model.node("Split", "layer2/activation")
    split.output[0], split.output[1] = split.output[1], split.output[0]
    return activation("layer2", *model.having("layer2", "sigmoid", "tanh", "gelu"))


@kind(layouts=("sorted",))
def swapped_concat(model: Export) -> Planted:
    """Two groups are put together in the wrong order."""
    concat = model.node("Concat", "layer2/activation")
    concat.input[0], concat.input[1] = concat.input[1], concat.input[0]
    return activation("layer2", *model.having("layer2", "sigmoid", "tanh", "gelu"))


# --- nodes that do not belong there


@kind()
def input_normalised_twice(model: Export) -> Planted:
    """The input is divided by 255 once more."""
    model.set_attribute("Gemm", "layer1", "alpha", 1 / 255)
    return before("layer1")


@kind()
def statistics_of_the_batch(model: Export) -> Planted:
    """A layer is normalised by its batch, so that an answer depends on the examples beside it."""
    model.insert(model.z("layer2"), "MeanVarianceNormalization", axes=[0])
    return before("layer2")


@kind()
def float16_cast(model: Export) -> Planted:
    """Values are rounded to float16 on their way."""
    z = model.z("layer3")
    model.insert(z, "Cast", to=TensorProto.FLOAT16)
    model.insert(z, "Cast", to=TensorProto.FLOAT)
    return before("layer3")


@kind()
def appended_softmax(model: Export) -> Planted:
    """The outputs are probabilities."""
    model.insert("output", "Softmax", axis=1)
    return output()


# --- convolutions


@kind("convolutional")
def other_epsilon(model: Export) -> Planted:
    """PyTorch's BatchNorm has another epsilon than the one that was folded."""
    norm = model.module.get_submodule("block1.norm")
    assert isinstance(norm, nn.BatchNorm2d)
    norm.eps = 1e-3
    return before("block1")


@kind("convolutional")
def lost_shift_of_a_channel(model: Export) -> Planted:
    """BatchNorm's shift of one channel is lost."""
    with model.edited("block2.conv.bias") as bias:
        bias[model.at("block2", [4])] = 0
    return before("block2", 4)


@kind("convolutional")
def scaled_channel(model: Export) -> Planted:
    """BatchNorm's factor of one channel is off by 1 %."""
    with model.edited("block1.conv.weight") as weight:
        weight[model.at("block1", [6])] *= 1.01
    return before("block1", 6)


@kind("convolutional")
def flipped_kernels(model: Export) -> Planted:
    """A convolution is computed where a correlation is meant."""
    with model.edited("block1.conv.weight") as weight:
        weight[:] = weight[..., ::-1, ::-1].copy()
    return before("block1")


@kind("convolutional")
def swapped_input_channels(model: Export) -> Planted:
    """A Conv takes two channels for each other."""
    channels = model.at("block1", (2, 5))
    with model.edited("block2.conv.weight") as weight:
        weight[:, channels] = weight[:, channels[::-1]]
    return before("block2")


@kind("convolutional")
def padding_on_one_side(model: Export) -> Planted:
    """All zeros are padded at the end, as TensorFlow does with strides."""
    model.set_attribute("Conv", "block2", "pads", [0, 0, 2, 2])
    return before("block2")


@kind("convolutional")
def dilated_kernels(model: Export) -> Planted:
    """Kernels are spread out."""
    model.set_attribute("Conv", "block2", "pads", [2, 2, 2, 2])
    model.set_attribute("Conv", "block2", "dilations", [2, 2])
    return before("block2")


@kind("convolutional")
def largest_for_mean(model: Export) -> Planted:
    """Pooling takes the largest value instead of the mean."""
    pool = model.node("AveragePool", "pool")
    pool.op_type = "MaxPool"
    pool.attribute.remove(next(attribute for attribute in pool.attribute if attribute.name == "count_include_pad"))
    return output()


@kind("convolutional")
def wrong_slope_of_a_channel(model: Export) -> Planted:
    """The Leaky ReLU of one channel has the slope 0.02 instead of 0.01; in the layout `scatter` those of all have."""
    channels = model.having("block2", "leaky_relu")
    if model.literal:
        model.set_attribute("LeakyRelu", "block2", "alpha", 0.02)
        return activation("block2", *channels)
    model.set_hinges("block2", "negative", channels[:1], 0.02)
    return activation("block2", channels[0])
