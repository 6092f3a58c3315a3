"""The commands for states on a server: `init`, `list`, `pull` and `push`; and `who` and `check` of a URL."""
