"""The checks of real processes, with their states on a PostgreSQL server in the place of a file.

Workers and judges are the same, because a state on a server keeps the same promises. Only a kill has other moments: a
request, and not a system call.
"""

from __future__ import annotations

from stress.check import Trial, check, logged
from stress.real import bank, contention, isolation, kill, servers


@check("server-bank", "On a server, the sum of the accounts is the same for every process.", missing=servers.missing)
def server_bank(trial: Trial) -> None:
    servers.rounds(trial, bank.one_day)


@check(
    "server-contention", "On a server, all increments count, and every process gets its turn.", missing=servers.missing
)
def server_contention(trial: Trial) -> None:
    with logged(trial.folder), servers.addresses(trial) as address:
        contention.races(trial, lambda processes: address())


@check(
    "server-isolation",
    "On a server, transactions and reads have one order, which agrees with time.",
    missing=servers.missing,
)
def server_isolation(trial: Trial) -> None:
    servers.rounds(trial, isolation.one_history)


@check(
    "server-kill",
    "On a server, no acknowledged commit of a killed program is lost or done twice, and none is seen half.",
    missing=servers.missing,
)
def server_kill(trial: Trial) -> None:
    servers.rounds(trial, kill.one_storm)
