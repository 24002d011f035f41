"""One training run: the loop, the step, evaluation and the clock."""
