"""A trained network as one file for other programs: safetensors or ONNX, with a model card."""
