"""A plugin whose import fails the way a missing shared library does."""

raise OSError("libmicro.so.1: cannot open shared object file")
