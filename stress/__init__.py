"""Programs that try to break the promises of docs/guarantees.md: simulated crashes and interleavings, and real torture.

`python -m stress list` shows them, `python -m stress run` runs them. There are three folders:

- `simulated`: every schedule of small scenarios, and random ones of larger ones, on a disk or a server that is a model.
  Only here can a kill, a failing call, a power cut or a lost answer come in every state.
- `real`: processes, threads, signals, editors and a full disk, at random moments.
- `files`: one process, and files that were cut, damaged, drawn, or left by a power cut.

`PROMISES` says which checks try to break which promise (P) or invariant (I). `soak` is not in it: it runs all others.
"""

#: Promise or invariant of docs/guarantees.md -> the checks that try to break it.
PROMISES: dict[str, tuple[str, ...]] = {
    # One plain YAML document after a clean close, and nothing beside it.
    "P1": (
        "crash-states", "cut", "bank", "contention", "disk-full", "edits", "fork", "isolation", "kill", "signals",
        "watch", "flavours", "schedules", "chance",
    ),
    # One call, one commit; an error means that nothing changed.
    "P2": ("disk-full", "kill", "signals", "flavours"),
    # An interrupted change is made or not made.
    "P3": ("signals", "server"),
    # A transaction is all or nothing.
    "P4": (
        "bank", "fork", "isolation", "kill", "signals", "schedules", "chance", "server-bank", "server-isolation",
        "server-kill",
    ),
    # What was committed is not lost when a process dies.
    "P5": (
        "crash-states", "cut", "bank", "contention", "edits", "flavours", "fork", "isolation", "kill", "schedules",
        "chance", "server", "server-bank", "server-contention", "server-isolation", "server-kill",
    ),
    # What was not committed is never seen.
    "P6": (
        "crash-states", "cut", "bank", "fork", "isolation", "kill", "schedules", "chance", "server", "server-bank",
        "server-isolation", "server-kill",
    ),
    # Writers exclude each other, and transactions have an order.
    "P7": (
        "bank", "contention", "flavours", "fork", "isolation", "kill", "schedules", "chance", "server", "server-bank",
        "server-contention", "server-isolation", "server-kill",
    ),
    # A reader sees the newest commit.
    "P8": (
        "bank", "flavours", "isolation", "signals", "schedules", "chance", "server", "server-bank", "server-isolation",
    ),
    # What goes in comes out.
    "P9": ("yaml",),
    # A person's save is not destroyed.
    "P10": ("edits", "watch", "schedules", "chance"),
    # Nothing is discarded silently.
    "P11": ("cut", "flip"),
    # Comments and style stay.
    "P12": ("edits",),
    # A watch misses no commit.
    "P13": ("watch", "schedules"),
    # Nobody cuts a whole record.
    "I1": ("cut", "schedules", "chance"),
    # Only the holder of the lock writes.
    "I2": ("schedules", "chance"),
    # What was acknowledged is in the file at the path.
    "I6": ("edits", "schedules", "chance"),
    # Only a vacuum's own temporary file is deleted.
    "I7": ("schedules",),
    # A refused change leaves memory and file as they were.
    "I8": ("disk-full", "flavours", "schedules", "chance"),
    # With durability "power", nothing is given or acknowledged that a power cut takes back.
    "I11": ("crash-states", "schedules", "chance"),
    # No journal goes that a watch has not read.
    "I12": ("watch", "schedules"),
}  # fmt: skip
