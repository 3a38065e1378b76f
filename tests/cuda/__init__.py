"""Tests of the CUDA plug-in, on a GPU or on the emulated device."""
