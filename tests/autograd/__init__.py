"""Tests of the autograd engine."""
