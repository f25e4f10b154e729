"""Tensors to tensors: model files, checked against their manifest, on a device."""
