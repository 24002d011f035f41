"""From raw pictures to `train.beton`, `test.beton` and `manifest.json`, and back to arrays."""
