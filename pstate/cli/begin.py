"""`pstate new`: a state file that did not exist before."""

from __future__ import annotations

import errno
import os
import secrets
from typing import Any

from pstate.cli import session, values, write
from pstate.cli.command import Command, Input, No, Parser, declare_file
from pstate.cli.urls import Url
from pstate.errors import DurabilityUnknown, MissingPathError, WriteError
from pstate.signals import expected, tolerating
from pstate.text import dumping
from pstate.values import take

#: What a file system says that has no hard links.
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}


def _declare(parser: Parser) -> None:
    declare_file(parser, "the state file to create, or the URL of the state")
    help_text = f"what is in it; VALUE is {values.MEANING}"
    parser.add_argument("assigned", metavar="PATH=VALUE", nargs="*", help=help_text)
    parser.set_defaults(path=None)
    values.declare_string(parser, "each VALUE is a string as it is")
    write.declare_parents(parser)


def _run(arguments: Any) -> int:
    file = arguments.file
    if not isinstance(file, Url) and os.path.lexists(file):
        raise _exists(file)
    step = write.step("", write.set_all, arguments, Input())
    tree: dict[Any, Any] = {}
    write.carry_out([step], tree)
    take(tree, lambda: file)  # refuses what a state cannot hold
    content = dumping.dump_value(tree)
    if isinstance(file, Url):
        with session.database(file) as found:
            if not found.create(content):
                raise _exists(file)
    else:
        _create(file, content)
    write.remark([step])
    return 0


def _exists(file: str) -> No:
    return No(f"{file}: already exists. Nothing was changed. To change it: pstate set {file} PATH VALUE")


def _create(file: str, content: bytes) -> None:
    """Make *file* with *content*: whole, or not at all, also if the machine crashes. Raises No if it exists.

    A process that is killed here may leave the file *made*, under a name that no other one uses.
    """
    folder = os.path.dirname(os.path.abspath(file))
    made = os.path.join(folder, f".pstate-new-{secrets.token_hex(8)}")
    try:
        _write(made, content)
        try:
            os.link(made, file)
        except expected(OSError) as error:
            if error.errno not in _NO_LINKS:
                raise
            _write(file, content)  # a program that opens it at this moment may find it empty
        finally:
            with tolerating(OSError):  # the file has been created, or the first error says why not
                os.unlink(made)
    except expected(FileExistsError):
        raise _exists(file) from None
    except expected(OSError) as error:
        if error.errno == errno.ENOENT and not os.path.isdir(folder):
            message = f"{file}: the folder {folder} does not exist. Nothing was changed. Create it first."
            raise MissingPathError(message, path=file, errno=error.errno) from error
        message = f"{file}: could not be created: {error.strerror}. Nothing was changed."
        raise WriteError(message, path=file, errno=error.errno) from error
    _sync_folder(folder, file)


def _write(file: str, content: bytes) -> None:
    """Make the new *file*, on stable storage. Where that fails, there is none."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(descriptor, "wb") as target:
            target.write(content)
            target.flush()
            os.fsync(target.fileno())
    except BaseException:
        os.unlink(file)
        raise


def _sync_folder(folder: str, file: str) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except expected(OSError) as error:
        message = f"{file}: was created, but may be gone after a power cut: {error.strerror} ({folder})."
        raise DurabilityUnknown(message, path=file, errno=error.errno) from error


COMMANDS = {
    "new": Command(
        "new",
        "create a file",
        "Create FILE, empty or with the values that are given. Of several processes that do so at the same time, one\n"
        "succeeds. Exit code 1 if FILE exists: nothing is changed then.",
        "$ pstate new queue.yaml jobs='[]' limits.retries=3 --parents\n"
        "$ cat queue.yaml\njobs: []\nlimits:\n  retries: 3\n"
        "$ pstate new queue.yaml || echo no\nno",
        _declare,
        _run,
    )
}
