"""The old name of the modules of the containers, for importers that are not changed yet."""

from pstate.memory.dicts import MappedDict
from pstate.memory.frames import store_of
from pstate.memory.lists import MappedList
from pstate.memory.sets import MappedSet

__all__ = ["MappedDict", "MappedList", "MappedSet", "store_of"]
