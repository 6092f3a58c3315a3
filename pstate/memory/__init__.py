"""The state as Python objects: containers, operations, transactions. This wing never sees a byte."""
