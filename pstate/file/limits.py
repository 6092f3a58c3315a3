"""How long and how often: the times and sizes of the file protocol, which docs/guarantees.md lists."""

from __future__ import annotations

#: How old the last look at the path may be when a commit returns, in seconds. A commit that an editor's rename
#: overtakes within it is found by the next look of a living process (docs/guarantees.md, "Editors"). A read or a change
#: that begins looks after half of it: so nearly every look comes before a write, where what it finds can still be
#: refused.
LOOK_INTERVAL = 0.010
#: How long after a commit its descriptor counts as ours without a question, in seconds: a loop of commits takes less
#: from one to the next, a program that closes all descriptors and opens a file takes more.
TRUST = 5e-6
#: How often a base document whose time stamp moved is compared with ours, at most; and how much of the time it may
#: cost.
CHECK_INTERVAL = 0.050
CHECK_COST = 100
#: A vacuum is due when the journal is this many times the base document, and at least this many bytes: then the bytes
#: that vacuums write are at most a quarter of those that the commits wrote, however large the state.
JOURNAL_FACTOR = 4
JOURNAL_MINIMUM = 1 << 20
#: How long a file that is saved in place must have been left alone before it counts as saved, in seconds; and how long
#: a writer waits for that.
QUIET = 0.050
QUIET_AT_MOST = 2.0
#: And how long a reader waits, where the file may be a vacuum's that others have acknowledged commits of.
QUIET_FOR_READERS = 4 * QUIET
#: How long a person may keep a copy in an editor across a vacuum so that we still notice commits that it lacks, in
#: seconds. After that, a value that goes back to what it was is taken for what the person wants.
STALE_COPY = 600.0
#: And across how many vacuums: so many documents are kept for it, besides the one in the file; but of those that are
#: more than so many bytes together, only the last few.
STALE_COPIES = 100
STALE_BYTES = 1 << 20
STALE_AT_LEAST = 4
#: How much younger than its time stamp a write may be where that is in whole seconds. FAT keeps every other second.
COARSE = 2.0
#: How long a path may be missing before it counts as deleted, in seconds: some editors move the file away, then write
#: it.
MISSING = 1.0
