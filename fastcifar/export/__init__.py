"""Exports a trained network for other programs: one safetensors or ONNX file, and a model card."""
