"""Programs that try to break the promises of docs/guarantees.md: simulated crashes and interleavings, and real torture.

`python -m stress list` shows them, `python -m stress run` runs them.
"""
