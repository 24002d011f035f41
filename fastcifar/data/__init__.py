"""Prepares raw images as `train.beton`, `test.beton` and `manifest.json`, and reads them back as arrays."""
