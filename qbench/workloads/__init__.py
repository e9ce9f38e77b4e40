"""What the built-in workloads are made of: checkpoints and their conversion, captions, real images."""
