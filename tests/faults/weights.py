"""Faults of weights and biases."""

from __future__ import annotations

import numpy as np
from torch import nn

from tests.faults.catalogue import Planted, before, edits, kind, output
from tests.faults.exported import Array, Export


@edits("layer2.linear.weight", "layer2.linear.bias", neurons=(3, 9))
def swapped_neurons(values: Array, rows: list[int]) -> None:
    """Two neurons have changed places, weights and bias."""
    values[rows] = values[rows[::-1]]


@edits("layer3.linear.weight", of="layer2", neurons=(1, 12))
def swapped_columns(weight: Array, columns: list[int]) -> None:
    """A layer takes two neurons for each other."""
    weight[:, columns] = weight[:, columns[::-1]]


@edits("layer1.linear.bias", neurons=(7,))
def lost_bias_of_one_neuron(bias: Array, rows: list[int]) -> None:
    """A bias is 0."""
    bias[rows] = 0


@edits("layer3.linear.bias")
def lost_bias_of_a_layer(bias: Array, rows: list[int]) -> None:
    """All biases are 0."""
    bias[:] = 0


@edits("output.bias", neurons=(2,))
def negated_bias(bias: Array, rows: list[int]) -> None:
    """A bias has the wrong sign."""
    bias[rows] *= -1


@edits("layer2.linear.weight", neurons=(5,))
def zeroed_weight(weight: Array, rows: list[int]) -> None:
    """One weight is 0."""
    weight[rows, 4] = 0


@edits("layer3.linear.weight", neurons=(14,))
def negated_weight(weight: Array, rows: list[int]) -> None:
    """One weight has the wrong sign."""
    weight[rows, 0] *= -1


@edits("layer3.linear.weight", neurons=(6,))
def scaled_weight(weight: Array, rows: list[int]) -> None:
    """One weight, the largest of its neuron, is larger by 0.1 %."""
    weight[rows, np.abs(weight[rows]).argmax()] *= 1.001


@edits("layer3.linear.weight")
def transposed_weight(weight: Array, rows: list[int]) -> None:
    """A square matrix is transposed."""
    weight[:] = weight.T.copy()


@edits("layer2.linear.weight")
def rolled_rows(weight: Array, rows: list[int]) -> None:
    """Each neuron has the weights of the one before it."""
    weight[:] = np.roll(weight, 1, 0)


@edits("layer2.linear.weight")
def float16_weights(weight: Array, rows: list[int]) -> None:
    """The weights of one layer are rounded to float16."""
    weight[:] = weight.astype(np.float16)


@edits("layer1.linear.weight")
def bfloat16_weights(weight: Array, rows: list[int]) -> None:
    """The weights of one layer are cut to bfloat16."""
    weight.view(np.uint32)[:] &= 0xFFFF0000


@edits("layer3.linear.weight", neurons=(1,))
def int8_row(weight: Array, rows: list[int]) -> None:
    """The weights of one neuron are rounded to int8."""
    step = np.abs(weight[rows]).max() / 127
    weight[rows] = np.round(weight[rows] / step) * step


@edits("layer2.linear.weight", neurons=(10,))
def nan_weight(weight: Array, rows: list[int]) -> None:
    """One weight is NaN."""
    weight[rows, 3] = np.nan


@edits("layer1.linear.weight", neurons=(20,))
def infinite_weight(weight: Array, rows: list[int]) -> None:
    """One weight is infinite."""
    weight[rows, 3] = np.inf


@kind()
def stale_neuron(model: Export) -> Planted:
    """PyTorch has trained one neuron further."""
    linear = model.module.get_submodule("layer2.linear")
    assert isinstance(linear, nn.Linear)
    linear.weight.data[11] += 0.01
    return before("layer2", 11)


@edits("output.weight", "output.bias", neurons=(0, 3))
def swapped_outputs(values: Array, rows: list[int]) -> None:
    """Two classes have changed places."""
    values[rows] = values[rows[::-1]]


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


# --- convolutions


@kind("convolutional")
def other_epsilon(model: Export) -> Planted:
    """PyTorch's BatchNorm has another epsilon than the one that was folded."""
    norm = model.module.get_submodule("block1.norm")
    assert isinstance(norm, nn.BatchNorm2d)
    norm.eps = 1e-3
    return before("block1")


@edits("block2.conv.bias", neurons=(4,), network="convolutional")
def lost_shift_of_a_channel(bias: Array, rows: list[int]) -> None:
    """BatchNorm's shift of one channel is lost."""
    bias[rows] = 0


@edits("block1.conv.weight", neurons=(6,), network="convolutional")
def scaled_channel(weight: Array, rows: list[int]) -> None:
    """BatchNorm's factor of one channel is off by 1 %."""
    weight[rows] *= 1.01


@edits("block1.conv.weight", network="convolutional")
def flipped_kernels(weight: Array, rows: list[int]) -> None:
    """A convolution is computed where a correlation is meant."""
    weight[:] = weight[..., ::-1, ::-1].copy()


@edits("block2.conv.weight", of="block1", neurons=(2, 5), network="convolutional")
def swapped_input_channels(weight: Array, channels: list[int]) -> None:
    """A Conv takes two channels for each other."""
    weight[:, channels] = weight[:, channels[::-1]]
