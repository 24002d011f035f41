"""The networks: the reference ResNet, that of the speed recipes, torchvision's ResNet-18, that of FFCV's example."""
