"""State, optimizer, the train step, checkpoints, the loop."""
