"""The times and sizes of the file protocol, which docs/guarantees.md lists."""

from __future__ import annotations

#: How old the last look at the path may be when a commit returns, in seconds. If an editor renames a file to the path
#: within this time, the next look of a running process finds the commit (docs/guarantees.md, "Editors"). A read or a
#: change that begins looks after half of it, so nearly every look comes before a write, when a change can still be
#: refused.
LOOK_INTERVAL = 0.010
#: How long after a commit its descriptor counts as ours without a check, in seconds. A loop of commits needs less time
#: from one to the next; a program that closes all descriptors and opens a file needs more.
TRUST = 5e-6
#: The shortest time between two comparisons of a base document whose time stamp has changed, in seconds; and the
#: multiple of the time of a comparison that must pass before the next one.
CHECK_INTERVAL = 0.050
CHECK_COST = 100
#: A vacuum is due when the journal is this many times the base document, and at least this many bytes. So vacuums write
#: at most a quarter of the bytes that commits wrote, for a state of any size.
JOURNAL_FACTOR = 4
JOURNAL_MINIMUM = 1 << 20
#: How long a file that is saved in place must be unchanged before it counts as saved, in seconds; and how long a writer
#: waits for that.
QUIET = 0.050
QUIET_AT_MOST = 2.0
#: How long a reader waits, if the file may come from a vacuum, with commits that others have acknowledged.
QUIET_FOR_READERS = 4 * QUIET
#: How long a person may keep a copy in an editor across a vacuum so that we still notice commits that it lacks, in
#: seconds. After that, a value that goes back to an earlier one counts as intended.
STALE_COPY = 600.0
#: Across how many vacuums: so many documents are kept for it, in addition to the one in the file. If they are more than
#: so many bytes together, only the last few are kept.
STALE_COPIES = 100
STALE_BYTES = 1 << 20
STALE_AT_LEAST = 4
#: How much younger than its time stamp a write may be if that is in whole seconds. FAT has a step of two seconds.
COARSE = 2.0
#: How long a path may be missing before it counts as deleted, in seconds: some editors move the file away, and then
#: write it.
MISSING = 1.0
