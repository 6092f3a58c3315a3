"""The rights of users in a file, by its mode and its access control list: a new file must have those of the old one.

This module does not call the file system. `fs.FileSystem.copy_attributes` copies, and checks the result here.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from typing import NamedTuple

from pstate.signals import expected

#: The access control list of a file as an extended attribute (linux/posix_acl_xattr.h): a version, then entries of
#: kind, permissions and number.
ACCESS_LIST = "system.posix_acl_access"
_ENTRY = struct.Struct("<HHI")
_VERSION_BYTES = 4
_USER, _GROUP_OBJ, _GROUP, _MASK = 0x02, 0x04, 0x08, 0x10
_ALL = 0o7


class Rights(NamedTuple):
    """The rights that a file gives."""

    owner: int
    group: int
    mode: int  #: the permission bits, with set-id and sticky
    access_list: bytes = b""  #: the extended attribute, if there is one


def reason_against(old: Rights, new: Rights) -> str:
    """Why a file with the rights *new* must not replace one with the rights *old*; "" if it may.

    It may if the owner of *old* loses no right, and no member of a group gains or loses one.
    """
    if (old.mode, old.access_list) != (new.mode, new.access_list):
        return "the new file could not be given the mode and the access control list of the old one"
    if old.group != new.group:
        # For two users who are each in one of the groups only, and are not named in a list.
        for group in (old.group, new.group):
            if _granted(old, None, {group}) != _granted(new, None, {group}):
                return (
                    f"the new file could not be given the group {old.group} of the old one, and group {new.group} "
                    "would get its rights"
                )
    # Root may do everything in any case.
    if old.owner not in (new.owner, 0) and _granted(old, old.owner, set()) & ~_granted_for_certain(new, old.owner):
        return f"the new file could not be given to user {old.owner}, who owns the old one and would lose rights"
    return ""


def _granted(rights: Rights, user: int | None, groups: Iterable[int]) -> int:
    """What a process of *user*, who is in *groups*, may do: the bits for reading, writing and executing."""
    if user == rights.owner:
        return rights.mode >> 6 & _ALL
    users: dict[int, int] = {}
    shared = {rights.group: rights.mode >> 3 & _ALL}
    mask = _ALL
    for kind, permissions, number in _ENTRY.iter_unpack(rights.access_list[_VERSION_BYTES:]):
        if kind == _USER:
            users[number] = permissions
        elif kind == _GROUP_OBJ:
            shared[rights.group] = permissions  # with a mask, the group bits of the mode are the mask
        elif kind == _MASK:
            mask = permissions
    for kind, permissions, number in _ENTRY.iter_unpack(rights.access_list[_VERSION_BYTES:]):
        if kind == _GROUP:
            shared[number] = shared.get(number, 0) | permissions
    if user in users:
        return users[user] & mask
    found = [shared[group] for group in groups if group in shared]
    if not found:
        return rights.mode & _ALL
    granted = 0
    for permissions in found:
        granted |= permissions
    return granted & mask


def _granted_for_certain(rights: Rights, user: int) -> int:
    """What *user* may do in any case, if the system does not know the groups of the user."""
    known = _groups_of(user)
    if known is not None:
        return _granted(rights, user, known)
    groups = {rights.group}
    groups |= {number for kind, _, number in _ENTRY.iter_unpack(rights.access_list[_VERSION_BYTES:]) if kind == _GROUP}
    granted = _granted(rights, user, ())
    for group in groups:
        granted &= _granted(rights, user, {group})
    return granted


def _groups_of(user: int) -> list[int] | None:
    """The groups of *user*; None if the system does not know that number."""
    try:
        import pwd  # each system that has owners has it

        entry = pwd.getpwuid(user)
        return os.getgrouplist(entry.pw_name, entry.pw_gid)
    except expected(ImportError, KeyError, OSError):
        return None
