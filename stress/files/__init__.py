"""Bytes: what a file may hold after a crash, and what is read from it."""
