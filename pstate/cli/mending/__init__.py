"""The commands that look at, repair and bring together damaged files."""
