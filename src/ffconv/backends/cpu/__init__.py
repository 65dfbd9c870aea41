"""C++ kernels for float32 tensors on the CPU, compiled when the package is installed."""
