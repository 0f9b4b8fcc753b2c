"""Loaded before the processes of commands are forked: what takes the first export of a process seconds to load."""

import warnings

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch.onnx.export(torch.nn.Identity().eval(), (torch.zeros(1, 1),), dynamo=True, verbose=False)
