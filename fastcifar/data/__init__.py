"""From raw images to `train.beton`, `test.beton` and `manifest.json`, and back to arrays."""
