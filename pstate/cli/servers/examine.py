"""What `pstate check` says about the state at a URL. Nothing is changed."""

from __future__ import annotations

from collections.abc import Callable

from pstate.cli import session, urls
from pstate.cli.mending.examine import ERROR, WARNING, Report, examine_text
from pstate.cli.servers import carry
from pstate.errors import PStateError
from pstate.signals import expected

_LOSES = "so a crash of the server can lose commits that were acknowledged"
_RUINS = "so a power cut can damage the whole database"
_MEANINGS = {"synchronous_commit": _LOSES, "fsync": _RUINS, "full_page_writes": _RUINS}


def examine_url(url: urls.Url, step: Callable[[str], None]) -> Report:
    """The report on the state at *url*; *step* is called with the name of each phase."""
    report = Report(str(url))
    try:
        with session.looked_at(url) as state:  # finds gaps, and records that do not fit
            found = carry.found_in(state)
        report.facts["bytes"] = len(found.document)
        report.facts |= {"revision": found.identity.revision, "commits": found.commits}
        examine_text(report, found.document)
        step("asking for the settings of the server")
        with session.database(url) as database:
            settings = database.is_safe()
        for name, is_on in settings.items():
            if not is_on:
                report.add(WARNING, name, f"{name} is off, {_MEANINGS[name]}.")
    except expected(PStateError) as error:
        report.refuse(error)
    except (LookupError, TypeError, ValueError) as error:
        report.add(ERROR, "CorruptStateError", f"a record does not fit the state before it: {error!r}.")
    return report
