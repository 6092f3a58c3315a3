"""From and to other stores: what `pstate import` and `pstate export` carry, what they refuse, and how they say so.

Three rules hold for all formats. Nothing is written unless everything can be: `faults` collects each place that cannot.
A source is only read, to the last byte and no further: not even by the library that made it. And nothing is unpickled
that nobody has asked for: `arrival` is the one module that can.
"""
