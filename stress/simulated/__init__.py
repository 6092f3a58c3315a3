"""Every schedule, crash and fault of simulated processes."""
