"""Readers and writers of checkpoint formats, one module a format."""
