"""What methods stand on: the trainer they share, its stream of rows, its schedule, targets and what it measures."""
