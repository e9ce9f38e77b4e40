"""What a package with a missing native library does."""

raise OSError("libcudart.so.99: cannot open shared object file")
