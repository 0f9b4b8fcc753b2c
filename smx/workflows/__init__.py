"""What each command does, as one call that returns a report. Calls that take only ONNX files need no torch."""
