"""How much memory calibration will take, found by running it on tensors that have a shape and nothing else."""
