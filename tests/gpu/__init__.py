"""Tests that need a CUDA device, and a llama.cpp that was built for one."""
