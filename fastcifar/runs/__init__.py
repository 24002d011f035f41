"""What a run leaves on disk: its folder, record, checkpoints and weights, and how they are read back."""
