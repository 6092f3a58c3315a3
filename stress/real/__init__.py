"""Real processes on a real file system."""
