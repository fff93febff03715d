"""Weights of an ONNX graph at 8 and 4 bits. kd.export.quantise.rewrite has the one function that callers need."""
