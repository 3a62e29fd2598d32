"""Checkpoint to artifact: one ONNX file that holds weights, labels and preprocessing."""
