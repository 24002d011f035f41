"""One training run: the loop, the step, evaluation, the clock."""
