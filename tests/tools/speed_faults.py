"""Planted faults in `pstate/_speed.c`: each takes one check away, and a test must notice.

``python -m tools.speed_faults [NAME ...]`` (`make test-faults`) compiles each faulty source into a copy of the package,
and runs there the tests that are to fail. What nothing notices is printed: either a test is missing, or the check is
not needed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tools.compiled import SOURCE, compiled, copied, environment


class Fault(NamedTuple):
    """*old*, which the source has once, becomes *new*: a condition that makes a difference no more, for instance."""

    name: str
    old: str
    new: str = "0"
    caught_by: str = "test_speed.py"


CLASSES = "test_speed_classes.py"
MEMORY = "test_speed_memory.py"
FINALIZERS = "test_speed_finalizers.py"
SYNC = "test_speed_sync.py"

FAULTS = [
    # where memory is
    Fault(
        "any log", "(PyObject *)Py_TYPE(log) != the_FileLog || !PyTuple_CheckExact(view)", "!PyTuple_CheckExact(view)"
    ),
    Fault("any view", "!PyTuple_CheckExact(view) || PyTuple_GET_SIZE(view) != 5", "PyTuple_GET_SIZE(view) != 5"),
    Fault(
        "a view of any size", "!PyTuple_CheckExact(view) || PyTuple_GET_SIZE(view) != 5", "!PyTuple_CheckExact(view)"
    ),
    Fault("any look", "(PyObject *)Py_TYPE(place->look) != the_Look"),
    Fault("any journal", "(PyObject *)Py_TYPE(place->journal) != the_Journal"),
    Fault("any lseek", "GET(log, FileLog, _lseek) != the_lseek"),
    Fault("any clock", "GET(log, FileLog, _clock) != the_clock"),
    Fault(
        "any identity",
        "!PyTuple_CheckExact(identity) || PyTuple_GET_SIZE(identity) != 2",
        "PyTuple_GET_SIZE(identity) != 2",
    ),
    Fault(
        "an identity of any size",
        "!PyTuple_CheckExact(identity) || PyTuple_GET_SIZE(identity) != 2",
        "!PyTuple_CheckExact(identity)",
    ),
    Fault(
        "any store",
        "return (PyObject *)Py_TYPE(store) == the_Store ? find_place_of",
        "return 1 ? find_place_of",
    ),
    Fault("any hold", "(PyObject *)Py_TYPE(place->hold) == the_Hold", "1"),
    Fault("any Standing", "(PyObject *)Py_TYPE(place->standing) == the_Standing", "1"),
    Fault("any handles", "PyTuple_CheckExact(GET(place->store, Store, _handles))", "1"),
    Fault("memory in another file", "GET(place->standing, Standing, journal) == place->journal", "1"),
    Fault("no marker", "GET(place->journal, Journal, marker) != Py_None", "1"),
    Fault("other content", "PyByteArray_GET_SIZE(place->content) == place->end", "1"),
    Fault("any flock", "GET(place->hold, Hold, flock) == the_flock", "1"),
    Fault("any write", "GET(place->journal, Journal, write) == the_write", "1"),
    Fault("a journal that is not ready", "GET(place->journal, Journal, is_ready) == Py_True", "1"),
    Fault(
        "a journal that is refused",
        "           GET(place->journal, Journal, refusal) == text_nothing;",
        "           1;",
    ),
    Fault("no look", "return time < seconds(GET(place->look, Look, look_at));", "(void)place; (void)time; return 1;"),
    Fault(
        "a file that has grown is fresh",
        "lseek(place->fd, 0, SEEK_END) != place->end || !has_looked(place, now())",
        "!has_looked(place, now())",
    ),
    Fault(
        "a look that is due is fresh",
        "lseek(place->fd, 0, SEEK_END) != place->end || !has_looked(place, now())",
        "lseek(place->fd, 0, SEEK_END) != place->end",
    ),
    Fault(
        "what is not settled is fresh",
        "return number(GET(place->journal, Journal, synced)) >= place->end;",
        "return 1;",
    ),
    # the thread lock
    Fault("any mutex", "(PyObject *)Py_TYPE(mutex) != the_RLock"),
    Fault("a mutex that is not free", "int result = got == Py_True ? TAKEN : NOT_TAKEN;", "int result = TAKEN;"),
    Fault(
        "the mutex is kept",
        "PyObject *result = release(mutex);",
        "PyObject *result = Py_NewRef(Py_None); Py_DECREF(result);",
    ),
    # the text of a record
    Fault("no room is made", "if (text->length + more <= text->room)", "if (1)"),
    Fault("less room is made", "size_t room = 2 * text->room + more;", "size_t room = text->room + 1;"),
    Fault("what was written is not taken along", "memcpy(grown, text->fixed, text->length);", "(void)0;"),
    Fault("quotes are plain", "byte != '\"' && byte != '\\\\'", "byte != '\\\\'"),
    Fault("backslashes are plain", "byte != '\"' && byte != '\\\\'", "byte != '\"'"),
    Fault(
        "controls are plain", "for (int byte = 0x20; byte < 0x7f; byte++)", "for (int byte = 0; byte < 0x7f; byte++)"
    ),
    Fault("0x7f is plain", "for (int byte = 0x20; byte < 0x7f; byte++)", "for (int byte = 0x20; byte <= 0x7f; byte++)"),
    Fault("any character is plain", "if (!is_plain[from[i]])", "if (0)"),
    Fault("no sign", "text->text[text->length++] = '-';", "(void)0;"),
    Fault("exponents are written", 'strpbrk(written, "en")', 'strpbrk(written, "n")'),
    Fault("inf and nan are written", 'strpbrk(written, "en")', 'strpbrk(written, "e")'),
    Fault(
        "an integer of any size",
        "return overflow ? NOT_TAKEN : put_integer(text, integer);\n    }\n    if (PyUnicode",
        "return put_integer(text, integer);\n    }\n    if (PyUnicode",
    ),
    Fault(
        "any value is null",
        '    else if (value == Py_None)\n        PUT_LITERAL(text, "null");',
        '    else if (1)\n        PUT_LITERAL(text, "null");',
    ),
    Fault("no checksum is chained", "crc = crc32_of(crc, text->text + begins", "crc = crc32_of(0, text->text + begins"),
    Fault(
        "the checksum is of less",
        "text->length - begins);\n    PUT_LITERAL",
        "text->length - begins - 1);\n    PUT_LITERAL",
    ),
    # paths
    Fault(
        "a key that is another's",
        "!PyUnicode_CheckExact(key) || PyDict_GetItemWithError(parent, key) != node",
        "!PyUnicode_CheckExact(key)",
    ),
    Fault(
        "an index that is another's",
        "index >= PyList_GET_SIZE(parent) || PyList_GET_ITEM(parent, index) != node",
        "index >= PyList_GET_SIZE(parent)",
    ),
    Fault("an index after the end", "index < 0 || index >= PyList_GET_SIZE(parent) || PyList", "index < 0 || PyList"),
    Fault("a path of any length", "if (depth == DEEPEST)", "if (0)"),
    Fault("the path is turned round", "put_key(text, keys[depth]) != TAKEN", "put_key(text, keys[0]) != TAKEN"),
    Fault(
        "a path that leads elsewhere by now",
        " ||\n        !leads_to(PyList_GET_ITEM(*operation, 1), node))",
        ")",
        FINALIZERS,
    ),
    # memory
    Fault(
        "handles are not told",
        "    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(handles); i++) {",
        "    for (Py_ssize_t i = 0; i < 0; i++) {",
    ),
    Fault("containers are overwritten", "return !is_node(old);", "return 1;"),
    Fault("the size of a list is not noted", "        SET(list, MappedList, _size, size);", "        (void)0;"),
    # what others have committed
    Fault("any string ends", "if (at >= reader->end || *at != '\"')", "if (at >= reader->end)"),
    Fault("zeros in front", "(*digits == '0' && at - digits > 1) || ", ""),
    Fault("long integers", "at - digits < 18", "at - digits < 30"),
    Fault("no minus", "*start == '-' ? -integer : integer", "integer"),
    Fault("an insert anywhere", "return index == batch->list_size++;", "return 1;"),
    Fault("the end of a list as it was", "batch->list_size += batch->changes[i].node == list;", "(void)i;"),
    Fault("another one's set at any key", " ||\n            *reader->at != '\"')", ")"),
    Fault(
        "another one's set over a container", '!SKIP(reader, ",") || !holds_no_node(node, key)', '!SKIP(reader, ",")'
    ),
    Fault(
        "another one's insert into a dict",
        "if (!node || (PyObject *)Py_TYPE(node) != the_MappedList || !SKIP",
        "if (!node || !SKIP",
    ),
    Fault("another one's operation goes on", 'if (!value || !SKIP(reader, "]")) {', "if (!value) {"),
    Fault("bytes after a body", 'return SKIP(reader, "]") && reader->at == reader->end', 'return SKIP(reader, "]")'),
    Fault(
        "handles are not told of others",
        "(change->node == root && mirror(store, change->key, change->value) != TAKEN)",
        "0",
    ),
    Fault("no checksum", "if (computed != written)", "if (0)"),
    Fault(
        "a checksum of other digits",
        "else if (digit >= 'a' && digit <= 'f')",
        "else if ((digit |= 32) >= 'a' && digit <= 'f')",
    ),
    Fault("any beginning", "< begins || memcmp(*at, RECORD_BEGINS, begins))", "< begins)"),
    Fault("any end", "memcmp(newline, RECORD_ENDS, ends) ||\n", "0 ||\n"),
    Fault("no newline at the end", " || newline[ends + 8] != '\\n')", ")"),
    Fault(
        "a checksum that is chained to nothing",
        "uint32_t computed = crc32_of(*crc, start",
        "uint32_t computed = crc32_of(0, start",
    ),
    Fault(
        "records up to the first that is another",
        "|| read_body(&body, root, batch) != TAKEN)\n            return NOT_TAKEN;",
        "|| read_body(&body, root, batch) != TAKEN)\n            return TAKEN;",
    ),
    Fault("content is not extended", "memcpy(PyByteArray_AS_STRING(content) + end, data, size);", "(void)data;"),
    Fault(
        "content is not cut",
        "    if (PyByteArray_Resize(content, (Py_ssize_t)end) < 0)",
        "    if (0 && content && end)",
    ),
    Fault("the checksum of the view", "PyLong_FromUnsignedLong(crc),", "PyLong_FromUnsignedLong(crc + 1),"),
    Fault(
        "the index of the view",
        "*index_object = PyLong_FromLongLong(index);",
        "*index_object = PyLong_FromLongLong(index + 1);",
    ),
    Fault("any class of descriptor", "(PyObject *)Py_TYPE(file) != the_Descriptor"),
    Fault(
        "a descriptor that is lost",
        "PyList_GET_SIZE(noted) != 1 || number(PyList_GET_ITEM(noted, 0)) != place->fd",
        "0",
    ),
    Fault(
        "another descriptor",
        "PyList_GET_SIZE(noted) != 1 || number(PyList_GET_ITEM(noted, 0)) != place->fd",
        "PyList_GET_SIZE(noted) != 1",
    ),
    Fault("any device", "(long long)status.st_dev == number(PyTuple_GET_ITEM(identity, 0)) &&", ""),
    Fault("any inode", "(long long)status.st_ino == number(PyTuple_GET_ITEM(identity, 1)) &&\n", "\n"),
    Fault("any way of opening", "fcntl(place->fd, F_GETFL) == number(PyTuple_GET_ITEM(identity, 2))", "1"),
    Fault(
        "those who watch are not told",
        "!PyTuple_CheckExact(watches) || PyTuple_GET_SIZE(watches)",
        "!PyTuple_CheckExact(watches)",
    ),
    Fault(
        "any trails",
        "(PyObject *)Py_TYPE(trails) == the_Trails ? GET(trails, Trails, _references) : Py_None",
        "GET(trails, Trails, _references)",
    ),
    Fault(
        "any pread",
        "!is_real(GET(place->standing, Standing, fs), name_pread, the_pread) || !is_ours(place)",
        "!is_ours(place)",
    ),
    Fault("another file's records", "name_pread, the_pread) || !is_ours(place)", "name_pread, the_pread)"),
    Fault(
        "the view before is not noted",
        "        SET(place->standing, Standing, before, place->view);\n        SET(store",
        "        SET(store",
    ),
    # the lock of the file
    Fault(
        "any descriptor is locked",
        "return time < seconds(GET(place->log, FileLog, _sure_until)) ||",
        "return 1 || time < seconds(GET(place->log, FileLog, _sure_until)) ||",
    ),
    Fault(
        "no lock is needed",
        "return flock(fd, LOCK_EX | LOCK_NB) ? -1 : lseek(fd, 0, SEEK_END);",
        "flock(fd, LOCK_EX | LOCK_NB); return lseek(fd, 0, SEEK_END);",
    ),
    Fault(
        "no lock is taken",
        "return flock(fd, LOCK_EX | LOCK_NB) ? -1 : lseek(fd, 0, SEEK_END);",
        "return lseek(fd, 0, SEEK_END);",
    ),
    Fault("the file of the lock is not noted", "    SET(place->hold, Hold, journal, place->journal);", "    (void)0;"),
    Fault(
        "how to unlock is not noted",
        "    SET(place->hold, Hold, unlock, GET(place->journal, Journal, unlock));",
        "    (void)0;",
    ),
    Fault("the lock is kept", "        if (flock(place->fd, LOCK_UN)) {", "        if (0) {"),
    Fault(
        "another lock is given back",
        "== place->journal && GET(place->hold, Hold, unlock) == unlock)",
        "== place->journal)",
    ),
    Fault(
        "the lock of another file is kept",
        "PyObject *done = PyObject_CallNoArgs(unlock = Py_NewRef(GET(place->hold, Hold, unlock)));",
        "PyObject *done = Py_NewRef(unlock = Py_NewRef(Py_None));",
    ),
    # a commit
    Fault("half a record", "if (written == (ssize_t)text->length)", "if (written > 0)"),
    Fault("a torn tail is left", "if (written > 0 && ftruncate(fd, (off_t)end)) {", "if (0 && end) {"),
    Fault("any stat", "!is_real(GET(place->standing, Standing, fs), name_stat, the_stat) ||", ""),
    Fault("a file without trailer", "GET(place->journal, Journal, takes_trailer) != Py_True ||", ""),
    Fault(
        "any site", "(PyObject *)Py_TYPE(site) == the_Site ? GET(site, Site, path) : Py_None", "GET(site, Site, path)"
    ),
    Fault(
        "a look with any descriptor",
        "!PyUnicode_CheckExact(path) || !is_ours(place) ||",
        "!PyUnicode_CheckExact(path) ||",
    ),
    Fault(
        "another inode at the path",
        "(long long)status.st_ino != number(PyTuple_GET_ITEM(identity, 1)))",
        "0)",
    ),
    Fault("the content is not compared", "if (time >= seconds(GET(place->look, Look, check_at)))", "if (0)"),
    Fault("a look is not noted for reads", "        SET(place->look, Look, look_at, begin);", "        (void)0;"),
    Fault("a look is not noted for commits", "        SET(place->look, Look, look_due, commit);", "        (void)0;"),
    Fault("a read repeats", "        SET(place->look, Look, retry_at, zero);", "        (void)0;"),
    Fault("trouble stays", "        SET(place->look, Look, trouble, Py_None);", "        (void)0;"),
    Fault("the view is not published", "    SET(place->store, Store, view, view);\n    double", "    double"),
    Fault("the descriptor is not sure", "        SET(place->log, FileLog, _sure_until, sure);", "        (void)0;"),
    Fault(
        "an error for a commit",
        "        PyErr_Clear(); /* the next commit checks",
        "        return FAILED; /* the next commit checks",
        MEMORY,
    ),
    Fault("no look after a commit", "time < seconds(GET(place->look, Look, look_due)))", "time > 0)"),
    Fault(
        "a list that was bypassed",
        "return number(GET(change->node, MappedList, _size)) == PyList_GET_SIZE(change->node);",
        "return 1;",
    ),
    Fault(
        "handles are not told of ours",
        "return change->node == GET(store, Store, root) ? mirror(store, change->key, change->value) : TAKEN;",
        "return TAKEN;",
    ),
    Fault(
        "the view of others",
        "        SET(store, Store, view, Py_None);\n        result = apply_batch",
        "        result = apply_batch",
        MEMORY,
    ),
    Fault(
        "after what others have written",
        "*result = size == place->end ? write_record(place->fd, text, place->end) : NOT_TAKEN;",
        "*result = size >= 0 ? write_record(place->fd, text, place->end) : NOT_TAKEN;",
    ),
    Fault("no vacuum", "if (*result == TAKEN && end >= number(GET(place->journal, Journal, vacuum_at)))", "if (0)"),
    Fault(
        "a vacuum one byte later",
        "if (*result == TAKEN && end >= number(GET(place->journal, Journal, vacuum_at)))",
        "if (*result == TAKEN && end > number(GET(place->journal, Journal, vacuum_at)))",
    ),
    Fault(
        "busy for ever",
        "            cut_content(place->content, place->end);\n        SET(place->store, Store, _busy, Py_False);",
        "            cut_content(place->content, place->end);",
    ),
    Fault(
        "in a transaction",
        "    int result;\n    double time = now();\n"
        "    if (GET(store, Store, changes) != Py_None || GET(store, Store, _busy) != Py_False)",
        "    int result;\n    double time = now();\n    if (GET(store, Store, _busy) != Py_False)",
    ),
    Fault(
        "in a change",
        "    int result;\n    double time = now();\n"
        "    if (GET(store, Store, changes) != Py_None || GET(store, Store, _busy) != Py_False)",
        "    int result;\n    double time = now();\n    if (GET(store, Store, changes) != Py_None)",
    ),
    Fault(
        "a commit without a place",
        "!takes_record(&place) || !fits(change) || !has_looked(&place, time) ||\n        !may_lock(&place, time))",
        "!fits(change) || !has_looked(&place, time) ||\n        !may_lock(&place, time))",
    ),
    Fault(
        "a commit that does not fit",
        "!takes_record(&place) || !fits(change) || !has_looked(&place, time) ||\n        !may_lock",
        "!takes_record(&place) || !has_looked(&place, time) ||\n        !may_lock",
    ),
    Fault(
        "a commit without a look",
        "!fits(change) || !has_looked(&place, time) ||\n        !may_lock(&place, time))",
        "!fits(change) ||\n        !may_lock(&place, time))",
    ),
    Fault(
        "a commit at any descriptor",
        "!fits(change) || !has_looked(&place, time) ||\n        !may_lock(&place, time))",
        "!fits(change) || !has_looked(&place, time))",
    ),
    # stable storage
    Fault("another one's sync", "if (GET(settling, Settling, _under_way) == Py_None)", "if (1)"),
    Fault(
        "a failed sync is over",
        "if (!failed && GET(settling, Settling, _under_way) == mine)",
        "if (GET(settling, Settling, _under_way) == mine)",
        SYNC,
    ),
    Fault("no sync", "failed = fdatasync(place->fd);", "failed = 0;", SYNC),
    Fault("a failure is not noted", "        SET(place->journal, Journal, unjudged, error);", "        (void)0;", SYNC),
    Fault("a folder that is due", "GET(place->journal, Journal, folder_due) == Py_False", "1"),
    Fault(
        "a failure that is judged",
        "GET(place->journal, Journal, refusal) == text_nothing && GET(place->journal, Journal, unjudged) == Py_None",
        "GET(place->journal, Journal, unjudged) == Py_None",
    ),
    Fault("any sync call", "!is_real(GET(settling, Settling, _fs), name_sync_data, the_sync_data) || ", ""),
    Fault(
        "any file system",
        "PyObject *found = fs == the_SYSTEM ? PyDict_GetItemWithError(the_calls, name) : NULL;",
        "PyObject *found = fs ? PyDict_GetItemWithError(the_calls, name) : NULL;",
    ),
    Fault(
        "what is synced is not noted",
        "            SET(place.journal, Journal, synced, PyTuple_GET_ITEM(newest, 1));",
        "            (void)0;",
    ),
    Fault(
        "any settling",
        "(PyObject *)Py_TYPE(settling) == the_Settling ? settle_newest(store, settling) : NOT_TAKEN",
        "settle_newest(store, settling)",
    ),
    Fault(
        "no settling",
        "    if (result == TAKEN)\n        result = settle(store, view);\n    Py_DECREF(mutex);",
        "    Py_DECREF(mutex);",
    ),
    Fault("no settling of a block", "        if (result == TAKEN)\n            result = settle(store, view);\n", ""),
    # a transaction
    Fault(
        "any thread's transaction",
        "return is_me(GET(store, Store, owner)) && (PyObject *)Py_TYPE(GET(store, Store, changes)) == the_Pending;",
        "return (PyObject *)Py_TYPE(GET(store, Store, changes)) == the_Pending;",
    ),
    Fault(
        "handles are not told in a block",
        "if (node == GET(store, Store, root) && mirror(store, key, value) != TAKEN)",
        "if (0)",
    ),
    Fault(
        "interrupted for ever", "    SET(store, Store, _interrupted, Py_False);\n    return TAKEN;", "    return TAKEN;"
    ),
    Fault("no undo", "if (PyList_Append(GET(changes, Pending, undo), undo) < 0)", "if (!undo)"),
    Fault("no second set", "if (PyDict_SetItem(GET(changes, Pending, latest), pair, operation) < 0)", "if (!pair)"),
    Fault(
        "no operation",
        "return PyList_Append(GET(changes, Pending, operations), operation) < 0 ? FAILED : TAKEN;",
        "return TAKEN;",
    ),
    Fault("each change has a base", "    if (GET(store, Store, _base_view) != Py_None)\n        return TAKEN;", ""),
    Fault(
        "a block on any journal",
        "!takes_record(&place))\n        return NOT_TAKEN;\n    SET(store, Store, _base_view",
        "0)\n        return NOT_TAKEN;\n    SET(store, Store, _base_view",
    ),
    Fault(
        "a delete for each undo",
        "inverse = old ? PyTuple_Pack(3, name_set, key, old) : PyTuple_Pack(2, name_delete, key);",
        "inverse = PyTuple_Pack(2, name_delete, key);",
    ),
    Fault(
        "the second set is not in the record",
        "        PyList_SetItem(latest, 3, Py_NewRef(value));",
        "        (void)0;",
    ),
    Fault(
        "not in order any more",
        "if (!is_in_order(store) || !holds_no_node(node, key))",
        "if (!holds_no_node(node, key))",
        FINALIZERS,
    ),
    Fault(
        "another old value by now",
        "PyTuple_GET_ITEM(inverse, 2) : NULL) != old ||",
        "PyTuple_GET_ITEM(inverse, 2) : NULL) == NULL + 1 ||",
        FINALIZERS,
    ),
    Fault(
        "in order for ever",
        "        SET(store, Store, owner, number_zero); /* it is no longer in order",
        "        (void)0; /* it is no longer in order",
        MEMORY,
    ),
    Fault(
        "memory is fresh in a block",
        "    SET(store, Store, _interrupted, Py_True);\n    SET(store, Store, view, Py_None);",
        "    SET(store, Store, _interrupted, Py_True);",
    ),
    Fault("any value", "if (!is_simple(value) || !PyUnicode_CheckExact(key)", "if (!PyUnicode_CheckExact(key)"),
    Fault("any key", "!PyUnicode_CheckExact(key) || !PyUnicode_IS_COMPACT_ASCII(key))", "0)"),
    # the ends of a block
    Fault(
        "a block in a transaction",
        "    Place place;\n    double time = now();\n"
        "    if (GET(store, Store, changes) != Py_None || GET(store, Store, _busy) != Py_False)",
        "    Place place;\n    double time = now();\n    if (GET(store, Store, _busy) != Py_False)",
        FINALIZERS,
    ),
    Fault(
        "a block in a change",
        "    Place place;\n    double time = now();\n"
        "    if (GET(store, Store, changes) != Py_None || GET(store, Store, _busy) != Py_False)",
        "    Place place;\n    double time = now();\n    if (GET(store, Store, changes) != Py_None)",
    ),
    Fault(
        "a block without a place",
        "!takes_record(&place) || !has_looked(&place, time) ||\n        !may_lock(&place, time))",
        "!has_looked(&place, time) ||\n        !may_lock(&place, time))",
    ),
    Fault(
        "a block without a look",
        "!takes_record(&place) || !has_looked(&place, time) ||\n        !may_lock(&place, time))",
        "!takes_record(&place) ||\n        !may_lock(&place, time))",
    ),
    Fault(
        "a block at any descriptor",
        "!takes_record(&place) || !has_looked(&place, time) ||\n        !may_lock(&place, time))",
        "!takes_record(&place) || !has_looked(&place, time))",
    ),
    Fault(
        "a block on what is not settled",
        "if (GET(place.log, FileLog, settles) != Py_False && number(GET(place.journal, Journal, synced)) < place.end)",
        "if (0)",
    ),
    Fault(
        "a block on what others have not settled",
        "if (size > place.end && GET(place.log, FileLog, settles) == Py_False) {",
        "if (size > place.end) {",
    ),
    Fault(
        "a block on what others have changed",
        "int result = size == place.end ? TAKEN : NOT_TAKEN;\n    if (size",
        "int result = size >= 0 ? TAKEN : NOT_TAKEN;\n    if (size",
    ),
    Fault(
        "a block without a lock",
        "        hold(&place);\n        SET(store, Store, _base_view",
        "        SET(store, Store, _base_view",
    ),
    Fault(
        "a block keeps the lock",
        "    } else if (size >= 0)\n        flock(place.fd, LOCK_UN);\n    Py_DECREF(since);",
        "    }\n    Py_DECREF(since);",
    ),
    Fault("a block within itself", "GET(self, Transaction, _changes) != Py_None ||\n", "0 ||\n"),
    Fault("a block in a closed store", "GET(store, Store, closed) != Py_False || ", ""),
    Fault("a block among greenlets", "|| !is_unpatched())", ")"),
    Fault("a thread that is not noticed", "PySet_Contains(the_noticed, thread) == 1", "1"),
    Fault(
        "the mutex of no block",
        "        } else if (give_mutex(mutex) == FAILED)\n            result = FAILED;",
        "        }",
    ),
    Fault(
        "an empty record",
        "!PyList_CheckExact(operations) || !PyList_GET_SIZE(operations)",
        "!PyList_CheckExact(operations)",
    ),
    Fault("any operation is a set", "if (name != name_set && ", "if (0 && "),
    Fault(
        "a block at the end of any journal",
        "if (find_place_of(store, base, place) != TAKEN || !takes_record(place))",
        "if (find_place_of(store, base, place) != TAKEN || !find_more(place))",
    ),
    Fault(
        "no vacuum after a block", "if (end >= number(GET(place->journal, Journal, vacuum_at)) || lseek", "if (lseek"
    ),
    Fault(
        "a block after what others have written",
        "|| lseek(place->fd, 0, SEEK_END) != place->end ||\n            !has_looked(place, now()))",
        "||\n            !has_looked(place, now()))",
    ),
    Fault(
        "no look at the end of a block", "!= place->end ||\n            !has_looked(place, now()))", "!= place->end)"
    ),
    Fault(
        "a block is busy for ever",
        "                SET(store, Store, _busy, Py_False);\n                SET(store, Store, owner",
        "                SET(store, Store, owner",
    ),
    Fault("a failure that nobody has judged", "&& GET(place->journal, Journal, unjudged) == Py_None", ""),
    Fault("a container by now", "if (!is_in_order(store) || !holds_no_node(node, key))", "if (!is_in_order(store))"),
    Fault(
        "another transaction ends",
        "GET(store, Store, changes) != changes || !is_in_order(store) ||",
        "!is_in_order(store) ||",
    ),
    Fault(
        "the end of what is not in order",
        "GET(store, Store, changes) != changes || !is_in_order(store) ||",
        "GET(store, Store, changes) != changes ||",
    ),
    Fault("the end around a block", "number(GET(changes, Pending, depth)) != 1 || ", ""),
    Fault("the end of a spoiled block", " || GET(changes, Pending, spoiled) != text_nothing) {", ") {"),
    Fault(
        "the base stays",
        "_base_view, Py_None);\n        SET(store, Store, ended, number_zero);\n        if (give_lock",
        "ended, number_zero);\n        SET(store, Store, ended, number_zero);\n        if (give_lock",
    ),
    Fault("the transaction stays open", "        SET(store, Store, changes, Py_None);\n", ""),
    Fault("the block stays open", "        SET(self, Transaction, _changes, Py_None);\n", ""),
    Fault(
        "the mutex of a block is kept",
        "        if (give_mutex(mutex) != TAKEN)\n            result = FAILED;\n        SET(self",
        "        SET(self",
    ),
    Fault(
        "any end is a good one",
        "int result = given[0] == Py_None ? counted(LEAVE, leave(self)) : NOT_TAKEN;",
        "int result = counted(LEAVE, leave(self));",
    ),
    # reading
    Fault(
        "what others do in a transaction",
        "if (GET(store, Store, changes) == Py_None && GET(store, Store, _busy) == Py_False &&\n            find_place",
        "if (GET(store, Store, _busy) == Py_False &&\n            find_place",
    ),
    Fault(
        "what others do in a change",
        "if (GET(store, Store, changes) == Py_None && GET(store, Store, _busy) == Py_False &&\n            find_place",
        "if (GET(store, Store, changes) == Py_None &&\n            find_place",
    ),
    Fault(
        "another thread's transaction is read",
        "return is_me(GET(store, Store, owner)) ? TAKEN : NOT_TAKEN; /* with the",
        "return TAKEN; /* with the",
    ),
    Fault("what is not fresh is read", "    if (is_fresh(&place))\n        return TAKEN;\n", "    return TAKEN;\n"),
    Fault(
        "any key is read",
        "    if (!PyUnicode_CheckExact(key))\n        return NOT_TAKEN;\n    int result = may_read",
        "    int result = may_read",
        CLASSES,
    ),
    Fault("a name with an underscore", " && PyUnicode_READ_CHAR(name, 0) != '_'", ""),
    Fault("own __getattr__", "_PyType_Lookup(type, name_getattr) == descriptor_of_getattr", "1", CLASSES),
    Fault(
        "own __getattribute__",
        "_PyType_Lookup(type, name_getattribute) == _PyType_Lookup(&PyDict_Type, name_getattribute)",
        "1",
        CLASSES,
    ),
    Fault("own __setitem__", "|| _PyType_Lookup(type, name_direct) != Py_True)", ")", CLASSES),
    Fault(
        "a __setitem__ that came later",
        "return !PyUnicode_Check(value) || _PyType_Lookup(type, name_setitem) == descriptor_of_setitem;",
        "return type && value;",
        CLASSES,
    ),
    Fault("names that are taken", "return found == 0;", "return found >= 0;"),
    Fault(
        "an index outside",
        "return at >= 0 && at < size ? PyList_GET_ITEM(list, at) : NULL;",
        "return PyList_GET_ITEM(list, at);",
    ),
    Fault("another log is asked", "|| place.log != self)", ")"),
    Fault("a body in CRLF", "body.end != body.at && body.end[-1] == '\\r'", "0"),
    Fault("any offset", "if (start < 0 || start > end - data)", "if (0)"),
    Fault("the body before", "    empty_batch(batch);\n    if (!PyUnicode", "    if (!PyUnicode"),
    # the module
    Fault("imported twice", "    if (the_Store) {", "    if (0) {"),
    Fault("a subinterpreter", "if (PyInterpreterState_Get() != PyInterpreterState_Main()) {", "if (0) {"),
]


def faulty(fault: Fault) -> str:
    """The source with *fault*."""
    source = SOURCE.read_text()
    assert source.count(fault.old) == 1, f"{fault.name}: the source has it {source.count(fault.old)} times: {fault.old}"
    return source.replace(fault.old, fault.new)


def noticed(fault: Fault, folder: Path) -> str:
    """Which test has failed with *fault*; "" if none has."""
    try:
        compiled(faulty(fault), folder)
    except ValueError as error:
        raise SystemExit(f"{fault.name} cannot be compiled: {error}") from error
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--timeout=30"]
    try:
        done = subprocess.run(
            [*command, *(f"tests/{name}" for name in fault.caught_by.split())],
            cwd=folder,
            env=environment(folder),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    except subprocess.TimeoutExpired:
        return "it takes too long"
    if not done.returncode:
        return ""
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0].partition(" ")[2].partition(" - ")[0] if failed else f"the process ends with {done.returncode}"


def main(names: list[str]) -> None:
    chosen = [fault for fault in FAULTS if not names or fault.name in names]
    folders: SimpleQueue[Path] = SimpleQueue()
    began = time.monotonic()

    def tried(fault: Fault) -> str:
        folder = folders.get()
        try:
            return noticed(fault, folder)
        finally:
            folders.put(folder)

    workers = os.cpu_count() or 1
    with TemporaryDirectory() as base, ThreadPoolExecutor(workers) as pool:
        for number in range(workers):
            copied(Path(base, str(number)))
            folders.put(Path(base, str(number)))
        sound = Fault("none", "#define PY_SSIZE_T_CLEAN", "#define PY_SSIZE_T_CLEAN 1", CLASSES)
        if by := noticed(sound, Path(base, "0")):
            raise SystemExit(f"without a fault, a test fails: {by}")
        missed = []
        for fault, by in zip(chosen, pool.map(tried, chosen), strict=True):
            print(f"{fault.name}: {by or 'NOT NOTICED'}", flush=True)
            if not by:
                missed.append(fault.name)
    print(f"{len(chosen)} faults in {time.monotonic() - began:.0f} s, {len(missed)} not noticed")
    if missed:
        raise SystemExit("not noticed: " + ", ".join(missed))


if __name__ == "__main__":
    main(sys.argv[1:])
