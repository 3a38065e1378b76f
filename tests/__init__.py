"""Tests of the Python package and, through it, of the engine."""
