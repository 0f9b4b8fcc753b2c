"""Faults of weights and biases."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from tests.faults.catalogue import Planted, before, edit, kind, output
from tests.faults.exported import Array, Export


def at_column(weight: Array, column: Any, value: Any) -> Array:
    """Return weights with one value of each row replaced."""
    return np.where(np.arange(weight.shape[1]) == column, value, weight)


def int8(weight: Array) -> Array:
    """Round to steps of 1/127 of the largest."""
    step = np.abs(weight).max() / 127
    return np.asarray(np.round(weight / step) * step)


LAYER1, LAYER2, LAYER3 = (f"layer{i}.linear.weight" for i in (1, 2, 3))
BOTH = "layer2.linear.weight layer2.linear.bias"

edit("swapped_neurons", "Two neurons have changed places, weights and bias.", BOTH, lambda v: v[::-1], neurons=(3, 9))
edit("swapped_columns", "A layer confuses two neurons.", LAYER3, lambda v: v[::-1], neurons=(1, 12), of="layer2")
edit("lost_bias_of_one_neuron", "A bias is 0.", "layer1.linear.bias", np.zeros_like, neurons=(7,))
edit("lost_bias_of_a_layer", "All biases are 0.", "layer3.linear.bias", np.zeros_like)
edit("negated_bias", "A bias has the wrong sign.", "output.bias", np.negative, neurons=(2,))
edit("zeroed_weight", "One weight is 0.", LAYER2, lambda v: at_column(v, 4, 0), neurons=(5,))
edit("negated_weight", "One weight has the wrong sign.", LAYER3, lambda v: at_column(v, 0, -v), neurons=(14,))
edit("nan_weight", "One weight is NaN.", LAYER2, lambda v: at_column(v, 3, np.nan), neurons=(10,))
edit("infinite_weight", "One weight is infinite.", LAYER1, lambda v: at_column(v, 3, np.inf), neurons=(20,))
edit(
    "scaled_weight",
    "One weight, the largest of its neuron, is larger by 0.1 %.",
    LAYER3,
    lambda v: at_column(v, np.abs(v).argmax(), 1.001 * v),
    neurons=(6,),
)
edit("transposed_weight", "A square matrix is transposed.", LAYER3, lambda v: v.T.copy())
edit("rolled_rows", "Each neuron has the weights of the one before it.", LAYER2, lambda v: np.roll(v, 1, 0))
edit("float16_weights", "Weights are rounded to float16.", LAYER2, lambda v: v.astype(np.float16))
edit(
    "bfloat16_weights",
    "Weights are cut to bfloat16.",
    LAYER1,
    lambda v: (v.view(np.uint32) & 0xFFFF0000).view(np.float32),
)
edit("int8_row", "The weights of one neuron are rounded to int8.", LAYER3, int8, neurons=(1,))
edit("swapped_outputs", "Two classes are exchanged.", "output.weight output.bias", lambda v: v[::-1], neurons=(0, 3))

CONVOLUTIONAL: Any = {"network": "convolutional"}
SHIFT, CONV1, CONV2 = "block2.conv.bias", "block1.conv.weight", "block2.conv.weight"

edit("lost_shift_of_a_channel", "A shift of BatchNorm is lost.", SHIFT, np.zeros_like, neurons=(4,), **CONVOLUTIONAL)
edit("scaled_channel", "A factor of BatchNorm is off by 1 %.", CONV1, lambda v: 1.01 * v, neurons=(6,), **CONVOLUTIONAL)
edit("flipped_kernels", "A correlation is a convolution.", CONV1, lambda v: v[..., ::-1, ::-1].copy(), **CONVOLUTIONAL)
edit(
    "swapped_input_channels",
    "A Conv confuses two channels.",
    CONV2,
    lambda v: v[::-1],
    neurons=(2, 5),
    of="block1",
    **CONVOLUTIONAL,
)


# --- PyTorch's network is another one


@kind()
def stale_neuron(model: Export) -> Planted:
    """PyTorch has trained one neuron further."""
    linear = model.module.get_submodule("layer2.linear")
    assert isinstance(linear, nn.Linear)
    linear.weight.data[11] += 0.01
    return before("layer2", 11)


@kind("convolutional")
def other_epsilon(model: Export) -> Planted:
    """PyTorch's BatchNorm has another epsilon than the one that was folded."""
    norm = model.module.get_submodule("block1.norm")
    assert isinstance(norm, nn.BatchNorm2d)
    norm.eps = 1e-3
    return before("block1")


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
