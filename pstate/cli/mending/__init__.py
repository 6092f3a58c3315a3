"""The commands that check and repair damaged files, and resolve edits above a journal."""
