"""The networks: the brief's ResNet, the network of the speed recipes, torchvision's ResNet-18."""
