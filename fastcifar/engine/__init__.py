"""The training engine: schedule, optimiser, step, evaluation, clock, record and the loop that wires them."""
