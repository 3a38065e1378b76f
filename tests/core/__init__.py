"""Tests of tensors, memory and types."""
