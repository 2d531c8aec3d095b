"""Readers of foreign files. Nothing in them is trusted: they are read as tensors, never as code."""
