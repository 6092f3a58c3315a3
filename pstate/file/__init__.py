"""The state in one file: the format, the lock, the commit protocol. This wing never sees a container."""
