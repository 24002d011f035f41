"""What a run leaves on disk (folder, record, checkpoints, weights) and how to read it back."""
