"""The latency and the footprint of ONNX files, side by side."""
