"""Run all checks, at random, with random seeds, for as long as there is time.

The other checks divide minutes between them, each in one go. Here they take turns of different lengths, which is what
finds the failure that comes once in hours: start it in the evening. It is left out of a run that names no checks.
"""

from __future__ import annotations

import shutil

from stress.check import CHECKS, BrokenPromise, Trial, check

#: How long a turn takes, in seconds.
SHORTEST, LONGEST = 3.0, 60.0


@check("soak", "All checks at random, with random seeds, for as long as you like.")
def soak(trial: Trial) -> None:
    names = [name for name, each in CHECKS.items() if name != "soak" and not each.missing(trial.url)]
    while trial.goes_on():
        name = trial.random.choice(names)
        seed = trial.random.randrange(1 << 32)
        seconds = min(trial.left, trial.random.uniform(SHORTEST, LONGEST))
        folder = trial.folder / name
        folder.mkdir()
        turn = Trial(seed, seconds, folder, url=trial.url)
        again = f"python -m stress run {name} --seed {seed} --seconds {seconds:.0f}"
        try:
            CHECKS[name].function(turn)
        except BrokenPromise as error:
            raise BrokenPromise(f"{again}: {error}") from error
        except Exception as error:
            raise RuntimeError(f"{again}: {error!r}") from error
        shutil.rmtree(folder)
        trial.count("turns")
        trial.count("things tried", sum(turn.counts.values()))
