"""Reads files of the PyPI package `persistedstate`, 23.1 to 26.1, as far as they make sense.

Pure functions from bytes to a plain state: no file is opened, nothing is written. The first commit writes what was read
here in our own format. `reading` reads plain base documents, and `format` our own records.

What those versions wrote:

==============  ====================================================================================================
23.1, 23.2      No journal: lines ``key: JSON``, the last line of a key counts (`load_lines`).
23.3            A base document, then records ``\\n---\\n`` + ``["set", key, value]`` or ``["delete", key]``.
                A vacuum writes ``<name>.tmp`` and renames it.
23.4            The same records. A vacuum works in place: it appends the new base, without any separator, as padding,
                writes the new base over the head, and truncates.
23.5            Records have a path: ``["set", path, key, value]``, ``["delete", path, key]``,
                ``["insert", path, index, value]``, and are written before the operation is tried.
23.6 to 26.1    A vacuum appends the new base as padding, then ``\\n---\\n### LAST VALID STATE ###\\n`` and the new base
                again, writes the new base and ``...\\n`` over the head, and truncates (on POSIX one byte too many,
                so that their base has no final newline).
==============  ====================================================================================================

Until 25.1, a container in a list kept its first path, and in 26.1, ``list.pop()`` still leaves wrong paths behind. Such
records do not say which container they changed. They are applied if `persistedstate` itself would apply them, else
skipped, and reported as `Recovered.doubtful`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pstate.errors import CorruptStateError, InvalidStateError, StateFileError
from pstate.text import reading
from pstate.values import MAX_DEPTH, place_text, same

_MARKER_LINE = re.compile(rb"^### LAST VALID STATE ###$\n?", re.MULTILINE)
_SEPARATOR = re.compile(rb"---[ \t]*$\n?", re.MULTILINE)  # at the beginning of a line
_RECORD = re.compile(rb'\s*\[\s*"(?:set|delete|insert)"\s*,')
_RECORD_STARTS = (b'["set", ', b'["delete", ', b'["insert", ')
_NOTHING_YET = re.compile(rb"(?:\xef\xbb\xbf)?(?:[ \t]*\n|[ \t]*#[^\n]*\n|%[^\n]*\n)*\Z")
_ROOT_KEY = re.compile(rb"^[^\s#\-\[\]{}][^\n]*?:(?=[ \n])", re.MULTILINE)
_LINE = re.compile(r"(?P<key>\"(?:[^\"\\]|\\.)*\"|[\w_.\-/]+):[ ]?(?P<value>.*)", re.DOTALL)

# json.dumps wrote bare NaN, Infinity and 1e+16: `JSONDecoder` reads them as numbers, YAML 1.1 reads strings.
_DECODER = json.JSONDecoder(strict=False)

_UNTOUCHED = "Nothing was changed. Keep a copy of the file, then "


@dataclass(frozen=True)
class Skipped:
    """A journaled operation to report: where it is, its bytes as text, and what is wrong with it."""

    line: int  #: counted from 1
    text: str
    reason: str


@dataclass
class Recovered:
    """The state of a file of `persistedstate`, as a plain tree, and what was not taken from the file."""

    value: dict[Any, Any]
    records: int = 0  #: operations applied after the base document
    skipped: list[Skipped] = field(default_factory=list)  #: operations that could not apply
    torn: bytes = b""  #: the unfinished last record, cut
    doubtful: list[Skipped] = field(default_factory=list)  #: operations whose path may be stale
    interrupted_vacuum: bool = False  #: the writer died within a vacuum


class _Document(NamedTuple):
    start: int  #: where its separator begins
    line: int  #: of its first byte after the separator
    text: bytes


def is_legacy(data: bytes) -> bool:
    """Whether *data* is certainly a journal, or a vacuum that was interrupted, of `persistedstate`.

    The caller has made sure that no line begins with our base marker. A plain document is not legacy, no matter which
    program wrote it: it needs no translation.
    """
    if b"\r\n" in data:
        data = data.replace(b"\r\n", b"\n")
    if b"### LAST VALID STATE ###" in data and _MARKER_LINE.search(data):
        return True
    if b"---" in data:
        documents = _documents(data)[1]
        if documents:
            return all(map(_is_record, documents[:-1])) and (_is_record(documents[-1]) or _is_torn(documents[-1].text))
    if data.endswith(b"\n--"):
        return True  # the separator of the first record, torn; as YAML it could never be read
    if data.endswith(b"\n-"):
        # After a list of the root, this is one more item, None. Then it is not certain.
        previous = data[:-2].rstrip(b"\n").rsplit(b"\n", 1)[-1]
        return bool(_ROOT_KEY.match(previous)) and not previous.rstrip().endswith(b":")
    return _padded(data) is not None and not _loads(data)


def load(data: bytes, path: str) -> Recovered:
    """Read *data*, for which `is_legacy` is true. *path* is for messages only.

    Operations that cannot apply are skipped and reported: `persistedstate` journaled them before it tried them, raised
    an error, and did not change its memory. A torn last record is cut and reported. Records are read as JSON, not as
    YAML, so that raw control characters do no harm, and NaN, Infinity and 1e+16 are the numbers that were meant
    (`persistedstate` itself would have read strings). Keys of nested mappings are strings, as JSON made them. After a
    vacuum that was interrupted at any point, the last valid state is found: after its marker if the head may be a
    mixture, in base and journal if the copy after them is unfinished.

    Raises CorruptStateError for a damaged record with others after it, and if nothing is certain; InvalidStateError if
    a document is not a mapping that pstate reads.
    """
    return _Reader(data.replace(b"\r\n", b"\n"), path).read()


def split(data: bytes) -> tuple[bytes, bytes]:
    """*data* in two parts: the document at its beginning, and the rest, which begins with its separator."""
    data = data.replace(b"\r\n", b"\n")
    end, documents = _documents(data)
    return (data[:end], data[end:]) if documents else (data, b"")


def may_be_damaged(data: bytes) -> bool:
    """Whether *data*, which cannot be read, may be a damaged file of `persistedstate`: it has a record."""
    return any(_RECORD.match(document.text) for document in _documents(data.replace(b"\r\n", b"\n"))[1])


def salvage(data: bytes, path: str, following: bool) -> tuple[Recovered, list[Skipped]]:
    """What can be kept of a file that `load` refuses, and what is lost.

    Everything before the damage is kept; with *following*, the records after it as well. Raises as `load` if the damage
    is in the document at the beginning, or not in a single place.
    """
    data = data.replace(b"\r\n", b"\n")
    lost: list[Skipped] = []
    while True:
        try:
            return load(data, path), lost
        except StateFileError as error:
            documents = [document for document in _documents(data)[1] if document.text.strip()]
            bad = next((document for document in reversed(documents) if document.line <= (error.line or 0)), None)
            if bad is None:
                raise
            if following:
                begin = data.index(b"\n", bad.start) + 1
                end = begin + len(bad.text)
                whole, gone = _whole_lines(bad)
                if not gone:  # each line is a record, but they do not load
                    gone = [Skipped(bad.line, _shown(bad.text), error.reason or "it cannot be read")]
                    whole = b"\n" * bad.text.count(b"\n")
                data = data[:begin] + whole + data[end:]
                lost += gone
            else:
                lost = [Skipped(each.line, _shown(each.text), "") for each in documents if each.line >= bad.line]
                data = data[: max(bad.start - 1, 0)]


def _whole_lines(document: _Document) -> tuple[bytes, list[Skipped]]:
    """The text of a damaged *document*, with a separator instead of each line that is not a whole record."""
    lines = document.text.split(b"\n")
    lost = []
    for index, line in enumerate(lines):
        try:
            record, rest = _decode(line)
            is_whole = _operation(record) is not None and not rest.strip()
        except (ValueError, RecursionError):
            is_whole = False
        if not is_whole and line.strip():
            lines[index] = b"---"
            lost.append(Skipped(document.line + index, _shown(line), "it is not a whole record"))
    return b"\n".join(lines), lost


def _shown(text: bytes) -> str:
    return text.strip().decode("utf-8", "backslashreplace")


def load_lines(data: bytes, path: str) -> Recovered:
    """Read the line format of 23.1 and 23.2: ``key: JSON`` per line, the last line of a key counts.

    The package does not call this: such a file with repeated keys looks just like a mapping with a person's mistake in
    it, and without them it is a plain base document. Those versions never wrote a deletion, and flushed every 8 KiB.
    """
    result = Recovered({})
    lines = data.replace(b"\r\n", b"\n").split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            match = _LINE.fullmatch(line.decode("utf-8"))
            if match is None:
                raise ValueError("it has no key")
            key, value = match["key"], _DECODER.decode(match["value"])
            if key.startswith('"'):
                key = _DECODER.decode(key)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                result.torn = line
                break
            raise CorruptStateError(
                f"{path}:{number}: this line is not one that persistedstate 23.1 wrote ({error}). {_UNTOUCHED}"
                "correct the line.",
                path=path,
                line=number,
                index=result.records,
            ) from None
        result.value[key] = value
        result.records += 1
    _check(result.value, path)
    return result


class _Reader:
    """One file while it is read."""

    def __init__(self, data: bytes, path: str) -> None:
        self.data = data
        self.path = path
        self.touched: dict[Any, bool] = {}  #: root keys in records, and whether the last record of each set all of it

    def read(self) -> Recovered:
        result = self._read(self.data)
        _check(result.value, self.path)
        return result

    def _read(self, data: bytes) -> Recovered:
        marker = _last(_MARKER_LINE, data)
        if marker is None:
            return self._replay(data, 0)
        copy = data[marker.end() :]
        documents = _documents(data, marker.end())[1]
        if (documents and not _is_torn(documents[-1].text)) or len(documents) > 1:
            # persistedstate has opened this file again, which is possible only with a complete copy.
            return self._replay(data, marker.end(), interrupted=True)
        for torn in (b"\n---\n", b"\n---", b"\n--", b"\n-"):
            if copy.endswith(b"\n" + torn):
                copy = copy.removesuffix(torn)
        if documents:
            copy = data[marker.end() : documents[0].start - 1]
        padding_end = marker.start() - len(b"\n---\n")
        if _is_complete(copy, data, padding_end):
            return self._replay(data, marker.end(), interrupted=True)
        # The copy is unfinished, so the head was not overwritten yet, and the padding is a whole copy as well.
        return self._replay(data[:padding_end], None, padded=True, interrupted=True)

    def _replay(self, data: bytes, start: int | None, *, padded: bool = False, interrupted: bool = False) -> Recovered:
        """Base document and records from *start* on, or after the last marker in *data*; padding may follow.

        *padded* says that there is padding and that it is complete.
        """
        if start is None:
            marker = _last(_MARKER_LINE, data)
            start = marker.end() if marker else 0
        base_end, documents = _documents(data, start)
        if documents and _is_torn_marker(documents[-1].text):
            data = data[: max(documents[-1].start - 1, 0)]
            documents = documents[:-1]
            padded = interrupted = True
            if not documents:
                base_end = len(data)
        if not documents:
            return self._base_only(data, start, padded=padded, interrupted=interrupted)
        try:
            # With the newline before the separator, which a literal ends with, for every loader of YAML.
            value = self._document(data[start : base_end + 1], _line(data, start))
        except InvalidStateError as error:
            if len(documents) == 1 and not documents[0].text.strip():
                return self._base_only(data[:base_end], start, padded=True, interrupted=True)
            return self._without_head(data, start, documents, error)
        result = Recovered(value, interrupted_vacuum=interrupted)
        names = list(value)
        padding, padded_whole = self._apply_all(result, documents)
        if padding:
            padded = padded or padded_whole
            result.interrupted_vacuum = True
            self._weigh(result, data, data[start:base_end], names, padding, padded=padded)
        return result

    def _apply_all(self, result: Recovered, documents: list[_Document]) -> tuple[bytes, bool]:
        """Apply the records to *result*. Returns the rest of the last line, which is the padding of a vacuum, and
        whether the separator of the marker follows it, so that it is complete.
        """
        replay = _Replay(result)
        for number, document in enumerate(documents):
            last = number == len(documents) - 1
            text = document.text
            if not text.strip():
                if last:
                    result.torn = self.data[document.start :]
                continue
            if text.lstrip()[:1] != b"[" and not text.lstrip(b"\0"):
                text = b""
            elif text.lstrip()[:1] != b"[" and not _is_torn(text):
                replay.restart(self._document(text, document.line))
                continue
            try:
                record, rest = _decode(text)
            except RecursionError:
                raise _too_deep(self.path, document.line) from None
            except ValueError as error:
                if not last or b"\n" in text.strip():
                    raise self._damage(document, str(error), result, documents[number + 1 :]) from None
                result.torn = document.text
                continue
            if rest in (b"\n-", b"\n--") or (rest and not rest.strip(b"\0\n")):
                if rest.strip(b"\n"):
                    result.torn = rest
                rest = b""
            if rest.strip() and not last and not (number == len(documents) - 2 and not documents[-1].text.strip()):
                raise self._damage(document, "its line has something after it", result, documents[number + 1 :])
            operation = _operation(record)
            if operation is None:
                raise self._damage(document, "unknown operation", result, documents[number + 1 :])
            if replay.apply(operation, document.line, text[: len(text) - len(rest)]):
                name, place, key = operation[:3]
                self.touched[place[0] if place else key] = name == "set" and not place
            if rest.strip():
                result.torn = b""
                return rest, not last
        return b"", False

    def _weigh(
        self, result: Recovered, data: bytes, base: bytes, names: list[Any], padding: bytes, *, padded: bool
    ) -> None:
        """Decide between base and journal on one side, and the padding after them on the other.

        Since 23.6, the head is overwritten only when a marker follows the padding. 23.4 and 23.5 set no marker, so
        there the head may be a mixture of the old and the new base. *names* are the keys in *base*.
        """
        if not padding.endswith(b"\n") or padding.endswith(b":\n"):
            return  # certainly unfinished, so the head was not overwritten
        try:
            copy = reading.load(padding, self.path).value
        except InvalidStateError:
            return
        if same(copy, result.value):
            result.doubtful = []
            return
        if not padded:
            # A mixture begins as the new base does, and goes on with the rest of a base of 23.4 or 23.5, which has a
            # final newline (since 23.6, on POSIX, none has), or with the rest of a record.
            if data[:1] != padding[:1] or not (base.endswith(b"\n") or _ends_in_record(base)):
                return
            # With a stale path in the journal, its state says nothing about the padding.
            if result.doubtful or _is_beginning(copy, result.value):
                if not result.doubtful and not self._may_be_mixture(result.value, data, base, names, copy, padding):
                    return
                line = _line(data, len(data) - len(padding))
                raise CorruptStateError(
                    f"{self.path}:{line}: a vacuum of persistedstate 23.4 or 23.5 was interrupted here, and the file "
                    f"does not show whether the state above this line or the one from here on is whole. {_UNTOUCHED}"
                    "remove the wrong one.",
                    path=self.path,
                    line=line,
                    index=result.records,
                )
        # The padding was dumped from memory, which knew the container that a stale path meant.
        result.value, result.doubtful = copy, []

    def _may_be_mixture(
        self, value: dict[Any, Any], data: bytes, base: bytes, names: list[Any], copy: dict[Any, Any], padding: bytes
    ) -> bool:
        """Whether the head can be a mixture, given that the padding then is the whole state that memory had.

        The part after the first difference between head and padding was not overwritten. Keys that the journal did not
        change there, or set last, must have the same values in the padding; otherwise the padding is unfinished.
        """
        places = [match.start() for match in _ROOT_KEY.finditer(base)]
        if len(places) != len(names):
            return True
        seam = _common(padding, data)
        whole = names[sum(place < seam for place in places) :]
        touched = self.touched
        if not any(name in touched for name in names[: len(names) - len(whole)]):
            return False  # the overwritten part cannot differ from the part before
        if any((name in value) != (name in copy) for name in (*whole, *touched)):
            return False
        settled = [name for name in whole if name not in touched] + [name for name in touched if touched[name]]
        return all(same(value[name], copy[name]) for name in settled if name in value)

    def _without_head(self, data: bytes, start: int, documents: list[_Document], error: InvalidStateError) -> Recovered:
        """Read a file of 23.4 or 23.5 whose base a vacuum was overwriting, so that only the padding is complete."""
        try:
            padding = _decode(documents[-1].text)[1]
        except (ValueError, RecursionError):
            raise error from None
        if start or not padding.endswith(b"\n") or data[:1] != padding[:1]:
            raise error
        return Recovered(self._document(padding, documents[-1].line), interrupted_vacuum=True)

    def _base_only(self, data: bytes, start: int, *, padded: bool, interrupted: bool) -> Recovered:
        """A file without records: a document, perhaps with a torn separator or padding directly after it."""
        base = data[start:]
        line = _line(data, start)
        if padded:
            split = _padding_of(base, self.path)
            if split is None:
                raise CorruptStateError(
                    f"{self.path}:{line}: a vacuum of persistedstate was interrupted, and the end of the state before "
                    f"it cannot be found. {_UNTOUCHED}remove the second copy of the state by hand.",
                    path=self.path,
                    line=line,
                )
            return Recovered(self._document(base[:split], line), interrupted_vacuum=True)
        for torn in (b"\n--", b"\n-"):
            # After a marker, the base ends with a newline, so an empty line precedes the separator.
            if base.endswith(torn) and (not start or base.endswith(b"\n" + torn)):
                try:
                    document = base.removesuffix(torn) + b"\n"
                    return Recovered(self._document(document, line), 0, [], torn, [], interrupted)
                except InvalidStateError:
                    return self._base_only(data.removesuffix(torn), start, padded=True, interrupted=True)
        try:
            return Recovered(self._document(base, line), interrupted_vacuum=interrupted)
        except InvalidStateError:
            split = _padded(base)
            if split is None:
                raise
            try:
                return Recovered(self._document(base[:split], line), interrupted_vacuum=True)
            except InvalidStateError:
                if base[split - 1 : split] != b"]":
                    raise
                # 23.4 and 23.5: head and padding are the new state, the rest of a record is between them.
                return Recovered(self._document(base[split:], _line(data, start + split)), interrupted_vacuum=True)

    def _document(self, text: bytes, line: int) -> dict[Any, Any]:
        if not text.strip():
            return {}
        # After empty lines, so that the parser counts the lines of the file.
        value: dict[Any, Any] = reading.load(b"\n" * (line - 1) + text, self.path).value
        return value

    def _damage(
        self, document: _Document, what: str, result: Recovered, following: list[_Document]
    ) -> CorruptStateError:
        readable = sum(map(_is_record, following))
        return CorruptStateError(
            f"{self.path}:{document.line}: damaged record of persistedstate ({what}), and {readable} records follow, "
            f"so this is not an unfinished write. {_UNTOUCHED}remove or correct the record. "
            f"Or keep what can be kept: pstate repair {self.path}",
            path=self.path,
            line=document.line,
            offset=document.start,
            index=result.records,
            following=readable,
        )


class _Replay:
    """Applies operations as `persistedstate` does when it loads, to plain containers."""

    def __init__(self, result: Recovered) -> None:
        self.result = result
        #: Lists whose elements have moved, so that paths through them may be stale. Kept alive for their ids.
        self.moved: dict[int, list[Any]] = {}

    def restart(self, value: dict[Any, Any]) -> None:
        self.result.value = value
        self.moved.clear()

    def apply(self, operation: tuple[Any, ...], line: int, text: bytes) -> bool:
        """Apply *operation*, or report why not. Returns whether it was applied."""
        name, path, key = operation[:3]
        shown = text.strip().decode("utf-8")
        target: Any = self.result.value
        doubt = False
        reason = ""
        for place, selector in enumerate(path):
            doubt = doubt or id(target) in self.moved
            try:
                target = target[selector] if isinstance(target, (dict, list)) else None
            except (LookupError, TypeError):
                target = None
            if not isinstance(target, (dict, list)):
                reason = f"{place_text(path[: place + 1])} is not a mapping or a list, or does not exist"
                break
        reason = reason or self._refusal(name, target, key)
        if doubt:
            doubtful = (
                f"elements of a list on the way to {place_text(path)} had moved, so the record may mean another element"
            )
            self.result.doubtful.append(Skipped(line, shown, doubtful))
        if reason:
            self.result.skipped.append(Skipped(line, shown, reason))
            return False
        if isinstance(target, list):
            self._note_moves(name, target, key, operation[-1])
        if name == "set":
            target[key] = operation[3]
        elif name == "delete":
            del target[key]
        elif isinstance(target, list):
            target.insert(key, operation[3])
        self.result.records += 1
        return True

    def _refusal(self, name: str, target: dict[Any, Any] | list[Any], key: Any) -> str:
        """Why the operation cannot apply, or the empty string."""
        if isinstance(target, list):
            if not isinstance(key, int):
                return f"{key!r} is not an index of a list"
            if name != "insert" and not -len(target) <= key < len(target):
                return f"the list has {len(target)} elements, and the index is {key}"
        elif name == "insert":
            return "a mapping has no insert"
        elif isinstance(key, (dict, list)):
            return "a list or a mapping cannot be a key"
        elif name == "delete" and key not in target:
            return f"the key {key!r} does not exist"
        elif key != key:
            return "NaN cannot be a key"
        return ""

    def _note_moves(self, name: str, target: list[Any], index: int, value: Any) -> None:
        """Remember lists in which an element has another index than the one that `persistedstate` keeps."""
        if name == "insert":
            nests = isinstance(value, (dict, list))
            moves = index != len(target) and (nests or any(isinstance(item, (dict, list)) for item in target))
        elif name == "delete":
            # pop() journals -1, with which 26.1 miscounts every element.
            moves = index != len(target) - 1 and any(isinstance(item, (dict, list)) for item in target)
        else:
            moves = index < 0 and isinstance(value, (dict, list))
        if moves:
            self.moved[id(target)] = target


def _documents(data: bytes, start: int = 0) -> tuple[int, list[_Document]]:
    """Where the base document that begins at *start* ends, and the documents after it."""
    separators = list(_separators(data, start))
    if separators and _NOTHING_YET.match(data[start : separators[0].start()]):
        head = data[separators[0].end() : separators[1].start() if len(separators) > 1 else len(data)]
        if not _RECORD.match(head) and not _is_torn(head):
            separators = separators[1:]  # this one belongs to the base document
    if not separators:
        return len(data), []
    documents: list[_Document] = []
    line, counted = _line(data, start), start
    for index, separator in enumerate(separators):
        line, counted = line + data.count(b"\n", counted, separator.end()), separator.end()
        end = separators[index + 1].start() if index + 1 < len(separators) else len(data)
        text = data[separator.end() : end]
        if index + 1 < len(separators):
            text = text.removesuffix(b"\n")
        documents.append(_Document(separator.start(), line, text))
    return max(separators[0].start() - 1, start), documents


def _separators(data: bytes, start: int) -> Iterator[re.Match[bytes]]:
    """The lines from *start* on that separate documents. A pattern for whole lines would take ten times as long."""
    line = start if not start or data[start - 1 : start] == b"\n" else data.find(b"\n---", start) + 1 or -1
    while line >= 0:
        found = _SEPARATOR.match(data, line)
        if found is not None:
            yield found
        line = data.find(b"\n---", line) + 1 or -1


def _is_record(document: _Document) -> bool:
    return not document.text.strip() or bool(_RECORD.match(document.text))


def _is_torn(text: bytes) -> bool:
    """Whether *text* is the beginning of a record, or of the comment after a vacuum's separator."""
    text = text.rstrip(b"\0")
    return not text.strip() or any(start.startswith(text) for start in _RECORD_STARTS) or _is_torn_marker(text)


def _is_torn_marker(text: bytes) -> bool:
    return bool(text) and b"### LAST VALID STATE ###\n".startswith(text)


def _decode(text: bytes) -> tuple[Any, bytes]:
    """The JSON value at the beginning of *text*, and the bytes after it. Raises ValueError, RecursionError."""
    stripped = text.lstrip()
    try:
        decoded = stripped.decode("utf-8")
    except UnicodeDecodeError as error:
        # Padding may end within a character; a record before it does not.
        if error.end < len(stripped) or error.reason != "unexpected end of data":
            raise
        decoded = stripped[: error.start].decode("utf-8")
    value, end = _DECODER.raw_decode(decoded)
    return value, stripped[len(decoded[:end].encode("utf-8")) :]


def _operation(record: Any) -> tuple[Any, ...] | None:
    """A record as (name, path, key[, value]), or None if it is not one."""
    match record:
        case ["set" | "insert", list(), _, _] | ["delete", list(), _]:
            return tuple(record)
        case ["set", key, value]:  # 23.3 and 23.4, which mapped only the root
            return "set", [], key, value
        case ["delete", key]:
            return "delete", [], key
    return None


def _is_complete(copy: bytes, data: bytes, padding_end: int) -> bool:
    """Whether *copy*, found after the marker, is the whole state and not only its beginning.

    It is if padding and head agree with that. The bytes before the marker are the padding, which is *copy* once more.
    The head, *copy* and ``...``, may have overwritten its beginning.
    """
    begin = padding_end - len(copy)
    if not copy.endswith(b"\n") or begin < 0:
        return False
    start = max(begin, _common(copy + b"...\n", data))
    return data[start:padding_end] == copy[start - begin :]


def _ends_in_record(base: bytes) -> bool:
    """Whether the last line of a base document looks like the end of a record, which no dump does."""
    line = base.rsplit(b"\n", 1)[-1]
    if not line.endswith(b"]"):
        return False
    return line.count(b"]") > line.count(b"[") or any(start in line for start in _RECORD_STARTS)


def _padded(data: bytes) -> int | None:
    """Where the padding of an interrupted vacuum begins in *data*, a base document as `persistedstate` writes it.

    The padding repeats the document from its beginning, at least its first line.
    """
    if data.endswith(b"\n\n"):
        data = data[:-1]  # the beginning of the separator after the padding
    if data in (b"{}{", b"{}{}", b"{}{}\n"):
        return 2
    key = _ROOT_KEY.match(data)
    if key is None:
        return None
    # The padding is no longer than the document and a newline, so it begins in the second half.
    split = data.find(key[0], max(key.end(), (len(data) - 1) // 2))
    view = memoryview(data)  # compared without copies, up to the first difference
    line_end = data.find(b"\n")
    while split > 0:
        first_line = line_end + 1 if 0 <= line_end < split else split
        size = min(len(data) - split, split)
        if size >= first_line and view[:size] == view[split : split + size] and data[split + size :] in (b"", b"\n"):
            return split
        split = data.find(key[0], split + 1)
    return None


def _padding_of(data: bytes, path: str) -> int | None:
    """Where the padding begins in *data*, a base document and then the same state as `persistedstate` dumps it."""
    try:
        reading.load(data, path)
    except InvalidStateError:
        pass
    else:
        return len(data)  # there was nothing before
    half, odd = divmod(len(data), 2)
    if (data[:half] + b"\n")[: half + odd] == data[half:]:
        return half
    # A base that a person has written has the keys in another order than the padding, which sorts them.
    keys = sorted({match[0] for match in _ROOT_KEY.finditer(data)})
    for key in keys[:3]:
        split, tries = data.rfind(key), 20
        while split > 0 and tries:
            tries -= 1
            try:
                if reading.load(data[:split], path).value == reading.load(data[split:], path).value:
                    return split
            except InvalidStateError:
                pass  # not here
            split = data.rfind(key, 0, split)
    return None


def _is_beginning(part: Any, whole: Any) -> bool:
    """Whether the dump of *part* could be the dump of *whole*, cut after some line."""
    if part is None or same(part, whole):
        return True
    if isinstance(part, dict) and isinstance(whole, dict) and part:
        *before, (key, value) = part.items()
        if any(key not in whole for key in part):
            return False
        return all(same(item, whole[name]) for name, item in before) and _is_beginning(value, whole[key])
    if isinstance(part, list) and isinstance(whole, list) and 0 < len(part) <= len(whole):
        last = len(part) - 1
        return same(part[:last], whole[:last]) and _is_beginning(part[last], whole[last])
    return isinstance(part, str) and isinstance(whole, str) and whole.startswith(part)


def _check(value: Any, path: str) -> None:
    """Refuse values that pstate could not write again: nested too deep, lone surrogates."""
    level: list[Any] = [value]
    depth = 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise _too_deep(path)
        below: list[Any] = []
        for item in level:
            children = [*item.keys(), *item.values()] if isinstance(item, dict) else item
            for child in children:
                if isinstance(child, (dict, list)):
                    below.append(child)
                elif isinstance(child, str) and not child.isascii():
                    _check_text(child, path)
        level = below


def _too_deep(path: str, line: int | None = None) -> InvalidStateError:
    place = f"{path}:{line}" if line else path
    return InvalidStateError(
        f"{place}: a record of persistedstate nests deeper than {MAX_DEPTH} levels. {_UNTOUCHED}flatten the value.",
        path=path,
        line=line,
    )


def _check_text(text: str, path: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidStateError(
            f"{path}: {text!r} has a lone surrogate, which no UTF-8 file can have. {_UNTOUCHED}correct the string.",
            path=path,
        ) from None


def _loads(data: bytes) -> bool:
    try:
        reading.load(data, "")
    except InvalidStateError:
        return False
    return True


def _common(left: bytes, right: bytes) -> int:
    """The length of the common beginning."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _last(pattern: re.Pattern[bytes], data: bytes) -> re.Match[bytes] | None:
    last = None
    for match in pattern.finditer(data):
        last = match
    return last


def _line(data: bytes, offset: int) -> int:
    return data.count(b"\n", 0, offset) + 1
