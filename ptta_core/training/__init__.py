"""Training the adapter: the objective, the pinned samples, checkpoints, the loop, and its launch over Ray workers."""
