"""Where raw CIFAR-10 comes from: archives, unpacked folders, image trees, the synthetic set."""
