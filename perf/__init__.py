"""What `perftest.py` measures: peers, works, and how results are shown."""
