# What pstate/speed.py uses of the compiled part, pstate/_speed.c.

SOURCE: str
