"""The quantization methods that come with qbench, one file each."""
