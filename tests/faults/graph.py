"""Faults of the graph: nodes that do not belong there, and attributes."""

from __future__ import annotations

from onnx import TensorProto

from tests.faults.catalogue import Planted, before, kind, output
from tests.faults.exported import Export


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
