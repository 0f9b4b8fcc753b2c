"""Faults of activations, and of the indices of their neurons."""

from __future__ import annotations

import numpy as np

from smx.layers import Mixed
from smx.paper import PAPER_POOL
from tests.faults.catalogue import Planted, activation, kind
from tests.faults.exported import Export

HINGES = ("relu", "leaky_relu", "elu", "selu")
"""The activations that the layout `sorted` computes together, see `smx.hinges`."""


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


@kind("convolutional")
def wrong_slope_of_a_channel(model: Export) -> Planted:
    """The Leaky ReLU of one channel has the slope 0.02 instead of 0.01; in the layout `scatter` those of all have."""
    channels = model.having("block2", "leaky_relu")
    if model.literal:
        model.set_attribute("LeakyRelu", "block2", "alpha", 0.02)
        return activation("block2", *channels)
    model.set_hinges("block2", "negative", channels[:1], 0.02)
    return activation("block2", channels[0])


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
