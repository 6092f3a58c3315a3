"""`pstate import` and `pstate export`: states from and to other stores.

Three rules hold for all formats. Nothing is written unless every value can be: `faults` collects the places of those
that cannot. A source is only read, and not by the library that wrote it. Nothing is unpickled without an option:
`arrival` is the only module that unpickles.
"""
