"""A trained model as one ONNX file that takes a photograph of any size and gives its mask: `lesionseg export`."""
