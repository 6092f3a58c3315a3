/* The hot path of pstate, compiled: the usual case of what programs do most often.
 *
 * The whole protocol is in Python; docs/guarantees.md numbers its rules. Each function here replaces a Python function
 * (`pstate/speed.py` lists them). It either handles the usual case to the end, or returns NOT_TAKEN before it has
 * changed anything. Then the Python function runs. So nothing here waits, repeats, repairs or reports.
 *
 * The rules of this file:
 *
 * - It works only on the real classes and the real system calls, which it compares by identity. A simulated file
 *   system, another engine and a subclass go through Python.
 * - Python code must not run in the middle. So nothing is allocated that the garbage collector counts (a tuple, a list,
 *   a dict) between the first check and the last change: CPython 3.11 runs finalizers at such an allocation. Such
 *   objects are made before, and everything is checked again after that.
 * - All steps that can fail come before the write. After it, only a dict or list that has to grow can fail: then `view`
 *   stays None, and the next access reads the file (I5).
 * - The GIL is released around calls that can wait. On a network file system all can, so there Python makes them.
 *
 * The slots of Python's classes are read at the offsets of their member descriptors. So those classes need not know
 * that this file exists.
 */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifdef __linux__
#include <sys/vfs.h>
#else
#include <sys/mount.h>
#include <sys/param.h>
#endif

#ifndef PSTATE_SOURCE /* set by `hatch_build.py` for each version of this file, so that no program runs an older one */
#define PSTATE_SOURCE "source unknown"
#endif

#ifdef Py_GIL_DISABLED
#error "pstate's compiled part relies on the GIL: build the pure package for a free-threaded Python"
#endif

/* The results of a function: an exception is set, the case is not the usual one, or it is done. */
enum { FAILED = -1, NOT_TAKEN = 0, TAKEN = 1 };

/* ------------------------------------------------------------------ objects from Python */

/* clang-format off */

/* The classes, and other objects that are compared by identity. */
#define NAMES(X)                                                                                                       \
    X(Store) X(FileLog) X(Journal) X(Look) X(Hold) X(Standing) X(Trails) X(Descriptor) X(Settling) X(Site) X(Records)  \
    X(MappedDict) X(MappedList) X(MappedSet) X(Pending) X(Transaction) X(format) X(ops) X(ROOT)                        \
    X(SYSTEM) X(calls) X(lseek) X(clock) X(flock) X(write) X(pread) X(stat) X(sync_data) X(limits)                     \
    X(RLock) X(acquire) X(release) X(waiting) X(send) X(noticed) X(threads) X(get_ident)

#define DECLARE(name) static PyObject *the_##name;
NAMES(DECLARE)
#undef DECLARE

/* The slots that are read here: class, slot. */
#define SLOTS(X)                                                                                                       \
    X(Store, view) X(Store, changes) X(Store, _busy) X(Store, owner) X(Store, log) X(Store, mutex) X(Store, root)      \
    X(Store, _handles) X(Store, _base_view) X(Store, _interrupted) X(Store, ended) X(Store, closed)                    \
    X(FileLog, _clock) X(FileLog, _lseek) X(FileLog, _sure_until) X(FileLog, hold) X(FileLog, look)                    \
    X(FileLog, memory) X(FileLog, settles) X(FileLog, standing) X(FileLog, settling) X(FileLog, site)                  \
    X(Look, look_at) X(Look, look_due) X(Look, retry_at) X(Look, check_at) X(Look, trouble) X(Site, path)              \
    X(Hold, flock) X(Hold, journal) X(Hold, unlock) X(Settling, _turn) X(Settling, _under_way) X(Settling, _fs)        \
    X(Standing, before) X(Standing, journal) X(Standing, trails) X(Standing, memory) X(Standing, fs)                   \
    X(Trails, _references) X(Records, _bodies)                                                                         \
    X(Journal, content) X(Journal, marker) X(Journal, is_ready) X(Journal, refusal) X(Journal, write)                  \
    X(Journal, vacuum_at) X(Journal, fd) X(Journal, unlock) X(Journal, identity) X(Journal, synced)                    \
    X(Journal, _file) X(Journal, base) X(Journal, folder_due) X(Journal, takes_trailer) X(Journal, unjudged)           \
    X(Descriptor, _noted) X(Descriptor, identity)                                                                      \
    X(MappedDict, _store) X(MappedDict, _parent) X(MappedDict, _key)                                                   \
    X(MappedList, _store) X(MappedList, _parent) X(MappedList, _key) X(MappedList, _size)                              \
    X(Pending, operations) X(Pending, undo) X(Pending, ordered) X(Pending, latest) X(Pending, depth)                   \
    X(Pending, left) X(Pending, spoiled) X(Pending, thread) X(Pending, mutex) X(Pending, since)                        \
    X(Transaction, _core) X(Transaction, _changes) X(Transaction, _mark)

/* clang-format on */

#define DECLARE(type, name) static Py_ssize_t at_##type##_##name;
SLOTS(DECLARE)
#undef DECLARE

/* The value in the slot *name* of *object*, an instance of *type*: borrowed. None if it is not set. */
#define GET(object, type, name) get_slot(object, at_##type##_##name)
#define SET(object, type, name, value) set_slot(object, at_##type##_##name, value)

static inline PyObject *
get_slot(PyObject *object, Py_ssize_t offset)
{
    PyObject *value = *(PyObject **)((char *)object + offset);
    return value ? value : Py_None;
}

static inline void
set_slot(PyObject *object, Py_ssize_t offset, PyObject *value)
{
    PyObject **slot = (PyObject **)((char *)object + offset);
    PyObject *old = *slot;
    *slot = Py_NewRef(value);
    Py_XDECREF(old);
}

/* The Python functions that are replaced, and how many calls of each were handled here. */
enum { READ, PUT, PUT_IN_TRANSACTION, ENTER, LEAVE, CATCH_UP, APPEND, SETTLE, DECODE, NUMBER_OF_COUNTS };
static const char *const count_names[NUMBER_OF_COUNTS] = {
    "read", "put", "put_in_transaction", "enter", "leave", "catch_up", "append", "settle", "decode"};
static long long taken[NUMBER_OF_COUNTS], not_taken[NUMBER_OF_COUNTS];

static inline int
counted(int what, int result)
{
    if (result == TAKEN)
        taken[what]++;
    else if (result == NOT_TAKEN)
        not_taken[what]++;
    return result;
}

static PyObject *name_set, *name_delete, *name_reserved, *name_direct, *name_getattr, *name_getattribute, *name_setitem,
    *name_get_ident;
static PyObject *name_publish, *name_settle, *name_failed, *name_unlock_again, *name_trust, *name_look_interval;
static PyObject *name_pread, *name_stat, *name_sync_data;
static PyObject *text_nothing, *number_zero, *number_one;

/* ------------------------------------------------------------------ helpers */

static inline double
now(void)
{
    struct timespec time;
#ifdef __APPLE__
    clock_gettime(CLOCK_UPTIME_RAW, &time); /* as time.monotonic on macOS */
#else
    clock_gettime(CLOCK_MONOTONIC, &time);
#endif
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* A number in a slot that only our classes set. -1 without an exception if it is not one. */
static inline long long
number(PyObject *value)
{
    int overflow;
    if (!PyLong_CheckExact(value))
        return -1;
#if PY_VERSION_HEX >= 0x030C0000
    if (PyUnstable_Long_IsCompact((PyLongObject *)value))
        return PyUnstable_Long_CompactValue((PyLongObject *)value);
#else
    if (Py_SIZE(value) == 1) /* one digit, as in most cases: a call would take as long as the rest of this function */
        return ((PyLongObject *)value)->ob_digit[0];
#endif
    return PyLong_AsLongLongAndOverflow(value, &overflow);
}

static inline double
seconds(PyObject *value)
{
    return PyFloat_CheckExact(value) ? PyFloat_AS_DOUBLE(value) : 0.0; /* long ago */
}

static inline int
is_me(PyObject *thread)
{
    return PyLong_CheckExact(thread) && PyLong_AsUnsignedLong(thread) == PyThread_get_thread_ident();
}

static inline int
is_node(PyObject *value)
{
    PyObject *type = (PyObject *)Py_TYPE(value);
    return type == the_MappedDict || type == the_MappedList || type == the_MappedSet;
}

/* CRC-32 as zlib computes it, eight bytes at a time. */
static uint32_t crc_table[8][256];

static void
make_crc_table(void)
{
    for (int byte = 0; byte < 256; byte++) {
        uint32_t crc = (uint32_t)byte;
        for (int bit = 0; bit < 8; bit++)
            crc = crc & 1 ? 0xEDB88320u ^ (crc >> 1) : crc >> 1;
        crc_table[0][byte] = crc;
    }
    for (int byte = 0; byte < 256; byte++)
        for (int row = 1; row < 8; row++)
            crc_table[row][byte] = crc_table[0][crc_table[row - 1][byte] & 255] ^ (crc_table[row - 1][byte] >> 8);
}

static uint32_t
crc32_of(uint32_t crc, const char *text, size_t length)
{
    const unsigned char *at = (const unsigned char *)text;
    crc = ~crc;
#if PY_LITTLE_ENDIAN
    for (; length >= 8; at += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        word ^= crc;
        crc = crc_table[7][word & 255] ^ crc_table[6][word >> 8 & 255] ^ crc_table[5][word >> 16 & 255] ^
              crc_table[4][word >> 24 & 255] ^ crc_table[3][word >> 32 & 255] ^ crc_table[2][word >> 40 & 255] ^
              crc_table[1][word >> 48 & 255] ^ crc_table[0][word >> 56];
    }
#endif
    for (; length; at++, length--)
        crc = crc_table[0][(crc ^ *at) & 255] ^ (crc >> 8);
    return ~crc;
}

/* Whether a system call, which is looked up each time, is still the real one: tests replace them. */
static inline int
is_real(PyObject *fs, PyObject *name, PyObject *real)
{
    PyObject *found = fs == the_SYSTEM ? PyDict_GetItemWithError(the_calls, name) : NULL;
    PyErr_Clear();
    return found == real;
}

/* Whether the file system of *device* answers at once. Its kind does not change while it is mounted. */
static int
is_near(int fd, PyObject *device)
{
    static long long near = -1, far = -1;
    long long name = number(device);
    if (name < 0 || name == far)
        return 0;
    if (name == near)
        return 1;
    struct statfs status;
    if (fstatfs(fd, &status))
        return 0;
#ifdef __linux__
    static const unsigned long of_the_network[] = {
        0x6969 /* NFS */,        0xFF534D42 /* CIFS */, 0xFE534D42 /* SMB2 */,       0x517B /* SMB */,
        0x65735546 /* FUSE */,   0x01021997 /* 9P */,   0x00C36400 /* Ceph */,       0x5346414F /* AFS */,
        0x6B414653 /* AFS */,    0x73757245 /* Coda */, 0x01161970 /* GFS2 */,       0x7461636F /* OCFS2 */,
        0x0BD00BD0 /* Lustre */, 0x47504653 /* GPFS */, 0x786F4256 /* VirtualBox */, 0xBACBACBC /* VMware */};
    for (size_t i = 0; i < sizeof of_the_network / sizeof *of_the_network; i++)
        if (((unsigned long)status.f_type & 0xFFFFFFFFul) == of_the_network[i]) {
            far = name;
            return 0;
        }
#elif defined(MNT_LOCAL)
    if (!(status.f_flags & MNT_LOCAL)) {
        far = name;
        return 0;
    }
#endif
    near = name;
    return 1;
}

/* ------------------------------------------------------------------ the position of memory */

/* A store with its log, and the parts of its view: all borrowed, valid until other code runs. */
typedef struct {
    PyObject *store, *log, *look, *hold, *standing, *view, *journal, *content;
    long long end, index;
    uint32_t crc;
    int fd;
} Place;

/* Read the parts of *view* of *store*, which is a `Store`. NOT_TAKEN if one of them has another class than expected, or
 * if there is no view. */
static inline int
find_place_of(PyObject *store, PyObject *view, Place *place)
{
    PyObject *log = GET(store, Store, log);
    if ((PyObject *)Py_TYPE(log) != the_FileLog || !PyTuple_CheckExact(view) || PyTuple_GET_SIZE(view) != 5)
        return NOT_TAKEN;
    place->store = store;
    place->log = log;
    place->view = view;
    place->look = GET(log, FileLog, look);
    if ((PyObject *)Py_TYPE(place->look) != the_Look)
        return NOT_TAKEN;
    place->fd = (int)number(PyTuple_GET_ITEM(view, 0));
    place->end = number(PyTuple_GET_ITEM(view, 1));
    place->journal = PyTuple_GET_ITEM(view, 4);
    if ((PyObject *)Py_TYPE(place->journal) != the_Journal)
        return NOT_TAKEN;
    PyObject *identity = GET(place->journal, Journal, identity);
    if (GET(log, FileLog, _lseek) != the_lseek || GET(log, FileLog, _clock) != the_clock)
        return NOT_TAKEN;
    if (!PyTuple_CheckExact(identity) || PyTuple_GET_SIZE(identity) != 2)
        return NOT_TAKEN;
    return is_near(place->fd, PyTuple_GET_ITEM(identity, 0));
}

static inline int
find_place(PyObject *store, Place *place)
{
    return (PyObject *)Py_TYPE(store) == the_Store ? find_place_of(store, GET(store, Store, view), place) : NOT_TAKEN;
}

/* The other parts that are needed to bring memory forward. */
static inline int
find_more(Place *place)
{
    place->hold = GET(place->log, FileLog, hold);
    place->standing = GET(place->log, FileLog, standing);
    place->content = GET(place->journal, Journal, content);
    place->crc = (uint32_t)number(PyTuple_GET_ITEM(place->view, 2));
    place->index = number(PyTuple_GET_ITEM(place->view, 3));
    return (PyObject *)Py_TYPE(place->hold) == the_Hold && (PyObject *)Py_TYPE(place->standing) == the_Standing &&
           PyTuple_CheckExact(GET(place->store, Store, _handles)) &&
           GET(place->standing, Standing, journal) == place->journal && PyByteArray_CheckExact(place->content) &&
           GET(place->journal, Journal, marker) != Py_None && PyByteArray_GET_SIZE(place->content) == place->end;
}

/* Whether a record may follow *place* at once, see `FileLog.begin` and `FileLog.commit`. The first one of a generation
 * comes with a marker, which Python writes. */
static inline int
takes_record(Place *place)
{
    return find_more(place) && GET(place->hold, Hold, flock) == the_flock &&
           GET(place->journal, Journal, write) == the_write && GET(place->journal, Journal, is_ready) == Py_True &&
           GET(place->journal, Journal, refusal) == text_nothing;
}

/* Whether the last look at the path counts at *time*, see `limits.LOOK_INTERVAL`. */
static inline int
has_looked(const Place *place, double time)
{
    return time < seconds(GET(place->look, Look, look_at));
}

/* `FileLog.fresh`: whether memory is the newest commit. */
static inline int
is_fresh(const Place *place)
{
    if (lseek(place->fd, 0, SEEK_END) != place->end || !has_looked(place, now()))
        return 0;
    PyObject *settles = GET(place->log, FileLog, settles);
    if (settles == Py_False)
        return 1;
    return number(GET(place->journal, Journal, synced)) >= place->end; /* `FileLog.fresh_durable` */
}

/* ------------------------------------------------------------------ the thread lock */

/* Take the mutex of *store* without waiting. May run finalizers, so earlier checks must be repeated. */
static int
take_mutex(PyObject *mutex)
{
    PyObject *arguments[2] = {mutex, Py_False};
    if ((PyObject *)Py_TYPE(mutex) != the_RLock)
        return NOT_TAKEN;
    PyObject *got = PyObject_Vectorcall(the_acquire, arguments, 2, NULL);
    if (!got)
        return FAILED;
    int result = got == Py_True ? TAKEN : NOT_TAKEN;
    Py_DECREF(got);
    return result;
}

/* An exception that is set, put aside while other code runs. */
#if PY_VERSION_HEX >= 0x030C0000
typedef PyObject *Raised;

static inline Raised
put_aside(void)
{
    return PyErr_GetRaisedException();
}

static inline int
raise_again(Raised raised)
{
    if (!raised)
        return TAKEN;
    PyErr_SetRaisedException(raised);
    return FAILED;
}
#else
typedef struct {
    PyObject *type, *value, *traceback;
} Raised;

static inline Raised
put_aside(void)
{
    Raised raised;
    PyErr_Fetch(&raised.type, &raised.value, &raised.traceback);
    return raised;
}

static inline int
raise_again(Raised raised)
{
    if (!raised.type)
        return TAKEN;
    PyErr_Restore(raised.type, raised.value, raised.traceback);
    return FAILED;
}
#endif

/* Release a Python lock that `take_mutex` has taken. Runs no Python code. */
static PyObject *
release(PyObject *mutex)
{
    PyObject *result = PyObject_Vectorcall(the_release, &mutex, 1, NULL);
    Py_XDECREF(result);
    return result;
}

/* Release the mutex, and hand over log messages that wait (`logger.send`). An earlier exception takes precedence. */
static int
give_mutex(PyObject *mutex)
{
    Raised raised = put_aside();
    PyObject *result = release(mutex);
    if (result && PyDict_GET_SIZE(the_waiting)) {
        result = PyObject_CallNoArgs(the_send);
        Py_XDECREF(result);
    }
    int is_good = result != NULL;
    if (raise_again(raised) != TAKEN)
        return FAILED;
    return is_good ? TAKEN : FAILED;
}

/* ------------------------------------------------------------------ the text of a record */

/* A buffer for text that can grow; it begins in *fixed*. */
typedef struct {
    char *text;
    size_t length, room;
    char fixed[2048];
} Text;

static void
begin_text(Text *text)
{
    text->text = text->fixed;
    text->length = 0;
    text->room = sizeof text->fixed;
}

static void
end_text(Text *text)
{
    if (text->text != text->fixed)
        PyMem_Free(text->text);
}

/* Make room for *more* bytes. NOT_TAKEN without memory. */
static int
reserve(Text *text, size_t more)
{
    if (text->length + more <= text->room)
        return TAKEN;
    size_t room = 2 * text->room + more;
    char *grown = text->text == text->fixed ? PyMem_Malloc(room) : PyMem_Realloc(text->text, room);
    if (!grown)
        return NOT_TAKEN;
    if (text->text == text->fixed)
        memcpy(grown, text->fixed, text->length);
    text->text = grown;
    text->room = room;
    return TAKEN;
}

static inline void
put_bytes(Text *text, const char *bytes, size_t length)
{
    memcpy(text->text + text->length, bytes, length);
    text->length += length;
}

#define PUT_LITERAL(text, literal) put_bytes(text, literal, sizeof(literal) - 1)

/* Bytes that need no escape in quotes: ASCII without controls, quote and backslash. */
static unsigned char is_plain[256];

static void
make_plain_table(void)
{
    for (int byte = 0x20; byte < 0x7f; byte++)
        is_plain[byte] = byte != '"' && byte != '\\';
}

static int
put_string(Text *text, PyObject *value)
{
    if (!PyUnicode_CheckExact(value) || !PyUnicode_IS_COMPACT_ASCII(value))
        return NOT_TAKEN;
    size_t length = (size_t)PyUnicode_GET_LENGTH(value);
    if (reserve(text, length + 2) != TAKEN)
        return NOT_TAKEN;
    const unsigned char *from = PyUnicode_DATA(value);
    char *to = text->text + text->length;
    *to++ = '"';
    for (size_t i = 0; i < length; i++) {
        if (!is_plain[from[i]])
            return NOT_TAKEN;
        *to++ = (char)from[i];
    }
    *to = '"';
    text->length += length + 2;
    return TAKEN;
}

static int
put_integer(Text *text, long long value)
{
    char digits[24];
    int count = 0;
    unsigned long long rest = value < 0 ? 0ULL - (unsigned long long)value : (unsigned long long)value;
    if (reserve(text, sizeof digits) != TAKEN)
        return NOT_TAKEN;
    do {
        digits[count++] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (value < 0)
        text->text[text->length++] = '-';
    while (count)
        text->text[text->length++] = digits[--count];
    return TAKEN;
}

/* As `scalars.scalar`, for numbers that JSON and YAML write alike. */
static int
put_float(Text *text, double value)
{
    char *written = PyOS_double_to_string(value, 'r', 0, Py_DTSF_ADD_DOT_0, NULL);
    if (!written) {
        PyErr_Clear();
        return NOT_TAKEN;
    }
    size_t length = strlen(written);
    int result = strpbrk(written, "en") ? NOT_TAKEN : reserve(text, length); /* an exponent; inf, nan */
    if (result == TAKEN)
        put_bytes(text, written, length);
    PyMem_Free(written);
    return result;
}

/* Append *value* as in a record. NOT_TAKEN for all values that are not simple. */
static int
put_scalar(Text *text, PyObject *value)
{
    if (PyLong_CheckExact(value)) {
        int overflow;
        long long integer = PyLong_AsLongLongAndOverflow(value, &overflow);
        return overflow ? NOT_TAKEN : put_integer(text, integer);
    }
    if (PyUnicode_CheckExact(value))
        return put_string(text, value);
    if (PyFloat_CheckExact(value))
        return put_float(text, PyFloat_AS_DOUBLE(value));
    if (reserve(text, 5) != TAKEN)
        return NOT_TAKEN;
    if (value == Py_True)
        PUT_LITERAL(text, "true");
    else if (value == Py_False)
        PUT_LITERAL(text, "false");
    else if (value == Py_None)
        PUT_LITERAL(text, "null");
    else
        return NOT_TAKEN;
    return TAKEN;
}

/* Whether `put_scalar` might take it: a cheap check before the others. */
static inline int
is_simple(PyObject *value)
{
    return PyLong_CheckExact(value) || PyBool_Check(value) || value == Py_None || PyFloat_CheckExact(value) ||
           (PyUnicode_CheckExact(value) && PyUnicode_IS_COMPACT_ASCII(value));
}

/* A key of a dict, or an index of a list, in a path. */
static int
put_key(Text *text, PyObject *key)
{
    if (PyUnicode_CheckExact(key))
        return put_string(text, key);
    if (!PyLong_CheckExact(key))
        return NOT_TAKEN;
    int overflow;
    long long integer = PyLong_AsLongLongAndOverflow(key, &overflow);
    return overflow ? NOT_TAKEN : put_integer(text, integer);
}

/* The longest path that is followed. */
#define DEEPEST 64

/* `ops.node_path`: the keys from the root to *node*, the last one first. Returns their number; -1 if it is not in the
 * state, or if an element of a list has moved since it was last seen, because finding it may take long. */
static int
keys_to(PyObject *node, PyObject **keys)
{
    int depth = 0;
    for (;;) {
        PyObject *parent, *key;
        if (PyObject_TypeCheck(node, (PyTypeObject *)the_MappedDict)) {
            parent = GET(node, MappedDict, _parent);
            key = GET(node, MappedDict, _key);
        } else if ((PyObject *)Py_TYPE(node) == the_MappedList) {
            parent = GET(node, MappedList, _parent);
            key = GET(node, MappedList, _key);
        } else
            return -1;
        if (parent == the_ROOT)
            return depth;
        if (depth == DEEPEST)
            return -1;
        if ((PyObject *)Py_TYPE(parent) == the_MappedDict) {
            if (!PyUnicode_CheckExact(key) || PyDict_GetItemWithError(parent, key) != node)
                return -1;
        } else if ((PyObject *)Py_TYPE(parent) == the_MappedList) {
            long long index = number(key);
            if (index < 0 || index >= PyList_GET_SIZE(parent) || PyList_GET_ITEM(parent, index) != node)
                return -1;
        } else
            return -1;
        keys[depth++] = key;
        node = parent;
    }
}

/* The path to *node* as `records.key_text` writes it. */
static int
put_path_to(Text *text, PyObject *node)
{
    PyObject *keys[DEEPEST];
    int depth = keys_to(node, keys);
    if (depth < 0 || reserve(text, 2) != TAKEN)
        return NOT_TAKEN;
    PUT_LITERAL(text, "[");
    while (depth--) {
        if (put_key(text, keys[depth]) != TAKEN || reserve(text, 2) != TAKEN)
            return NOT_TAKEN;
        if (depth)
            PUT_LITERAL(text, ",");
    }
    PUT_LITERAL(text, "]");
    return TAKEN;
}

static int
put_path(Text *text, PyObject *path)
{
    if (!PyList_CheckExact(path) || reserve(text, 2) != TAKEN)
        return NOT_TAKEN;
    PUT_LITERAL(text, "[");
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(path); i++) {
        if (i)
            PUT_LITERAL(text, ",");
        if (put_key(text, PyList_GET_ITEM(path, i)) != TAKEN || reserve(text, 2) != TAKEN)
            return NOT_TAKEN;
    }
    PUT_LITERAL(text, "]");
    return TAKEN;
}

#define RECORD_BEGINS "--- "
#define RECORD_ENDS "\n... # "
/* After the body: the line above, eight digits, a newline. */
#define AFTER_BODY (sizeof(RECORD_ENDS) - 1 + 8 + 1)

/* End the record in *text*, which is chained to *crc*; returns its own checksum. The caller has made room. */
static uint32_t
end_record(Text *text, uint32_t crc)
{
    const size_t begins = sizeof(RECORD_BEGINS) - 1;
    crc = crc32_of(crc, text->text + begins, text->length - begins);
    PUT_LITERAL(text, RECORD_ENDS);
    for (int shift = 28; shift >= 0; shift -= 4)
        text->text[text->length++] = "0123456789abcdef"[crc >> shift & 15];
    text->text[text->length++] = '\n';
    return crc;
}

/* ------------------------------------------------------------------ memory */

/* `Store._mirror`: every `PersistedState` is a dict with the items of the root. */
static int
mirror(PyObject *store, PyObject *key, PyObject *value)
{
    PyObject *handles = GET(store, Store, _handles);
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(handles); i++) {
#if PY_VERSION_HEX >= 0x030D0000
        PyObject *handle;
        int found = PyWeakref_GetRef(PyTuple_GET_ITEM(handles, i), &handle);
        if (found < 0)
            return FAILED;
        if (!found)
            continue;
#else
        PyObject *handle = PyWeakref_GetObject(PyTuple_GET_ITEM(handles, i));
        if (!handle)
            return FAILED;
        if (handle == Py_None)
            continue;
        Py_INCREF(handle);
#endif
        int result = PyDict_SetItem(handle, key, value);
        Py_DECREF(handle);
        if (result < 0)
            return FAILED;
    }
    return TAKEN;
}

/* The dict that a change of *node* changes: the root, if *node* is a `PersistedState`. */
static inline PyObject *
target_of(PyObject *store, PyObject *node)
{
    return GET(node, MappedDict, _parent) == the_ROOT ? GET(store, Store, root) : node;
}

/* Whether *key* of *node* may be set here: its value is a scalar, or missing. */
static int
holds_no_node(PyObject *node, PyObject *key)
{
    PyObject *old = PyDict_GetItemWithError(node, key);
    if (!old) {
        if (!PyErr_Occurred())
            return 1;
        PyErr_Clear();
        return 0;
    }
    return !is_node(old);
}

/* `ops.apply` of an insert at the end of *list*. */
static int
append_to(PyObject *list, PyObject *value)
{
    PyObject *size = PyLong_FromSsize_t(PyList_GET_SIZE(list) + 1);
    if (!size)
        return FAILED;
    int result = PyList_Append(list, value) < 0 ? FAILED : TAKEN;
    if (result == TAKEN)
        SET(list, MappedList, _size, size);
    Py_DECREF(size);
    return result;
}

/* ------------------------------------------------------------------ commits of others */

/* One change of others: a scalar into a dict, or to the end of a list. */
typedef struct {
    PyObject *node; /* borrowed: no change here takes a container out */
    PyObject *key;  /* NULL for a list */
    PyObject *value;
} Theirs;

typedef struct {
    Theirs *changes;
    size_t count, room;
    PyObject *list;       /* the one that was appended to last: borrowed */
    Py_ssize_t list_size; /* its size after all changes so far */
} Batch;

/* At most so many changes are searched to find out how long a list will be. */
#define MANY_CHANGES 4096

static void
empty_batch(Batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        Py_XDECREF(batch->changes[i].key);
        Py_DECREF(batch->changes[i].value);
    }
    batch->count = 0;
    batch->list = NULL;
}

static void
end_batch(Batch *batch)
{
    empty_batch(batch);
    PyMem_Free(batch->changes);
}

/* Note a change; takes the references to *key* and *value*. */
static int
add_to_batch(Batch *batch, PyObject *node, PyObject *key, PyObject *value)
{
    if (batch->count == batch->room) {
        size_t room = batch->room ? 2 * batch->room : 64;
        Theirs *grown = PyMem_Realloc(batch->changes, room * sizeof *grown);
        if (!grown) {
            Py_XDECREF(key);
            Py_DECREF(value);
            return NOT_TAKEN;
        }
        batch->changes = grown;
        batch->room = room;
    }
    batch->changes[batch->count++] = (Theirs){node, key, value};
    return TAKEN;
}

/* A reader of one line: its position, and the end of the line. */
typedef struct {
    const char *at, *end;
} Reader;

static inline int
skip(Reader *reader, const char *expected, size_t length)
{
    if ((size_t)(reader->end - reader->at) < length || memcmp(reader->at, expected, length))
        return 0;
    reader->at += length;
    return 1;
}

#define SKIP(reader, literal) skip(reader, literal, sizeof(literal) - 1)

/* A string without escapes, from its opening quote on. NULL, without an exception, for another one. */
static PyObject *
read_string(Reader *reader)
{
    const char *start = reader->at + 1, *at = start;
    while (at < reader->end && is_plain[(unsigned char)*at])
        at++;
    if (at >= reader->end || *at != '"')
        return NULL;
    PyObject *text = PyUnicode_New(at - start, 127);
    if (!text) {
        PyErr_Clear();
        return NULL;
    }
    if (at != start)
        memcpy(PyUnicode_DATA(text), start, (size_t)(at - start));
    reader->at = at + 1;
    return text;
}

/* A number of JSON: an integer of up to 18 digits, or a float. The caller checks what follows, such as an exponent. */
static PyObject *
read_number(Reader *reader)
{
    const char *start = reader->at, *at = start, *digits;
    long long integer = 0;
    if (*at == '-')
        at++;
    for (digits = at; at < reader->end && *at >= '0' && *at <= '9' && at - digits < 18; at++)
        integer = 10 * integer + (*at - '0');
    if (at == digits || (*digits == '0' && at - digits > 1) || at >= reader->end)
        return NULL;
    PyObject *value;
    if (*at == '.') {
        char copy[64];
        ++at;
        while (at < reader->end && *at >= '0' && *at <= '9')
            at++;
        if (at >= reader->end || (size_t)(at - start) >= sizeof copy)
            return NULL;
        memcpy(copy, start, (size_t)(at - start));
        copy[at - start] = 0;
        double number = PyOS_string_to_double(copy, NULL, NULL);
        value = number == -1.0 && PyErr_Occurred() ? NULL : PyFloat_FromDouble(number);
    } else
        value = PyLong_FromLongLong(*start == '-' ? -integer : integer);
    if (!value)
        PyErr_Clear();
    else
        reader->at = at;
    return value;
}

static PyObject *
read_scalar(Reader *reader)
{
    if (reader->at >= reader->end)
        return NULL;
    switch (*reader->at) {
    case '"':
        return read_string(reader);
    case 't':
        return SKIP(reader, "true") ? Py_NewRef(Py_True) : NULL;
    case 'f':
        return SKIP(reader, "false") ? Py_NewRef(Py_False) : NULL;
    case 'n':
        return SKIP(reader, "null") ? Py_NewRef(Py_None) : NULL;
    default:
        return (*reader->at >= '0' && *reader->at <= '9') || *reader->at == '-' ? read_number(reader) : NULL;
    }
}

/* The container at the path at the reader's position: borrowed. NULL if it is not an easy one. */
static PyObject *
read_path(Reader *reader, PyObject *root)
{
    PyObject *node = root;
    if (!SKIP(reader, "["))
        return NULL;
    if (SKIP(reader, "]"))
        return node;
    for (;;) {
        PyObject *key = read_scalar(reader);
        if (!key)
            return NULL;
        if ((PyObject *)Py_TYPE(node) == the_MappedDict && PyUnicode_CheckExact(key)) {
            node = PyDict_GetItemWithError(node, key);
            PyErr_Clear();
        } else if ((PyObject *)Py_TYPE(node) == the_MappedList && PyLong_CheckExact(key)) {
            long long index = number(key);
            node = index < 0 || index >= PyList_GET_SIZE(node) ? NULL : PyList_GET_ITEM(node, index);
        } else
            node = NULL;
        Py_DECREF(key);
        if (!node)
            return NULL;
        if (SKIP(reader, "]"))
            return node;
        if (!SKIP(reader, ","))
            return NULL;
    }
}

/* Whether *index* is the end of *list*, with the elements that *batch* will append to it. */
static int
is_end(Batch *batch, PyObject *list, long long index)
{
    if (batch->list != list) {
        if (batch->count > MANY_CHANGES)
            return 0;
        batch->list = list;
        batch->list_size = PyList_GET_SIZE(list);
        for (size_t i = 0; i < batch->count; i++)
            batch->list_size += batch->changes[i].node == list;
    }
    return index == batch->list_size++;
}

/* One operation, into *batch*. */
static int
read_operation(Reader *reader, PyObject *root, Batch *batch)
{
    PyObject *node, *key = NULL, *value;
    if (SKIP(reader, "[\"set\",")) {
        node = read_path(reader, root);
        if (!node || (PyObject *)Py_TYPE(node) != the_MappedDict || !SKIP(reader, ",") || reader->at >= reader->end ||
            *reader->at != '"')
            return NOT_TAKEN;
        key = read_string(reader);
        if (!key)
            return NOT_TAKEN;
        if (!SKIP(reader, ",") || !holds_no_node(node, key)) {
            Py_DECREF(key);
            return NOT_TAKEN;
        }
    } else if (SKIP(reader, "[\"insert\",")) {
        node = read_path(reader, root);
        if (!node || (PyObject *)Py_TYPE(node) != the_MappedList || !SKIP(reader, ","))
            return NOT_TAKEN;
        PyObject *index = read_scalar(reader);
        if (!index)
            return NOT_TAKEN;
        int is_at_end = PyLong_CheckExact(index) && is_end(batch, node, number(index));
        Py_DECREF(index);
        if (!is_at_end || !SKIP(reader, ","))
            return NOT_TAKEN;
    } else
        return NOT_TAKEN;
    value = read_scalar(reader);
    if (!value || !SKIP(reader, "]")) {
        Py_XDECREF(key);
        Py_XDECREF(value);
        return NOT_TAKEN;
    }
    return add_to_batch(batch, node, key, value);
}

/* The body of one record, into *batch*. */
static int
read_body(Reader *reader, PyObject *root, Batch *batch)
{
    if (!SKIP(reader, "["))
        return NOT_TAKEN;
    for (;;) {
        if (read_operation(reader, root, batch) != TAKEN)
            return NOT_TAKEN;
        if (SKIP(reader, ","))
            continue;
        return SKIP(reader, "]") && reader->at == reader->end ? TAKEN : NOT_TAKEN;
    }
}

/* Apply the changes of *batch* to memory, and to the handles of *store*, unless that is NULL. */
static int
apply_batch(const Batch *batch, PyObject *store)
{
    PyObject *root = store ? GET(store, Store, root) : NULL;
    for (size_t i = 0; i < batch->count; i++) {
        const Theirs *change = &batch->changes[i];
        if (change->key) {
            if (PyDict_SetItem(change->node, change->key, change->value) < 0 ||
                (change->node == root && mirror(store, change->key, change->value) != TAKEN))
                return FAILED;
        } else if (append_to(change->node, change->value) != TAKEN)
            return FAILED;
    }
    return TAKEN;
}

/* The digits of a checksum; NOT_TAKEN if they are not digits as we write them. */
static int
read_hex(const char *digits, uint32_t *found)
{
    uint32_t value = 0;
    for (int i = 0; i < 8; i++) {
        char digit = digits[i];
        if (digit >= '0' && digit <= '9')
            value = value << 4 | (uint32_t)(digit - '0');
        else if (digit >= 'a' && digit <= 'f')
            value = value << 4 | (uint32_t)(digit - 'a' + 10);
        else
            return NOT_TAKEN;
    }
    *found = value;
    return TAKEN;
}

/* The record that begins at *at*, chained to *crc*: sets *body*, *crc* to its checksum, and *at* to its end. */
static int
read_record(const char **at, const char *end, uint32_t *crc, Reader *body)
{
    const size_t begins = sizeof(RECORD_BEGINS) - 1, ends = sizeof(RECORD_ENDS) - 1;
    if ((size_t)(end - *at) < begins || memcmp(*at, RECORD_BEGINS, begins))
        return NOT_TAKEN;
    const char *start = *at + begins, *newline = memchr(start, '\n', (size_t)(end - start));
    uint32_t written;
    if (!newline || (size_t)(end - newline) < AFTER_BODY || memcmp(newline, RECORD_ENDS, ends) ||
        read_hex(newline + ends, &written) != TAKEN || newline[ends + 8] != '\n')
        return NOT_TAKEN;
    uint32_t computed = crc32_of(*crc, start, (size_t)(newline - start));
    if (computed != written)
        return NOT_TAKEN;
    *crc = computed;
    *body = (Reader){start, newline};
    *at = newline + AFTER_BODY;
    return TAKEN;
}

/* All records in *data*, chained to *crc*, into *batch*. *data* must have no other bytes. */
static int
read_all(const char *data, size_t length, uint32_t *crc, long long *count, PyObject *root, Batch *batch)
{
    const char *at = data, *end = data + length;
    Reader body;
    for (; at < end; ++*count)
        if (read_record(&at, end, crc, &body) != TAKEN || read_body(&body, root, batch) != TAKEN)
            return NOT_TAKEN;
    return TAKEN;
}

/* Make room for *size* bytes in *content*, whose first *end* bytes count, and copy *data* after those. */
static int
extend_content(PyObject *content, long long end, const char *data, size_t size)
{
    if (PyByteArray_Resize(content, (Py_ssize_t)(end + (long long)size)) < 0) {
        PyErr_Clear();
        return NOT_TAKEN;
    }
    memcpy(PyByteArray_AS_STRING(content) + end, data, size);
    return TAKEN;
}

static void
cut_content(PyObject *content, long long end)
{
    if (PyByteArray_Resize(content, (Py_ssize_t)end) < 0)
        PyErr_Clear(); /* cannot fail: it only becomes shorter, and was resized a moment ago */
}

/* Fill *view*, an empty tuple of five, with the view after *place*. NOT_TAKEN without memory. */
static int
fill_view(PyObject *view, const Place *place, long long end, uint32_t crc, long long index)
{
    PyObject *end_object = PyLong_FromLongLong(end), *crc_object = PyLong_FromUnsignedLong(crc),
             *index_object = PyLong_FromLongLong(index);
    if (!end_object || !crc_object || !index_object) {
        PyErr_Clear();
        Py_XDECREF(end_object);
        Py_XDECREF(crc_object);
        Py_XDECREF(index_object);
        return NOT_TAKEN;
    }
    PyObject *items[5] = {Py_NewRef(PyTuple_GET_ITEM(place->view, 0)), end_object, crc_object, index_object,
                          Py_NewRef(place->journal)};
    for (int i = 0; i < 5; i++) {
        Py_XDECREF(PyTuple_GET_ITEM(view, i));
        PyTuple_SET_ITEM(view, i, items[i]);
    }
    return TAKEN;
}

/* Whether the descriptor still means the file that was opened, with the same flags: `Journal.demand`. */
static int
is_ours(const Place *place)
{
    PyObject *file = GET(place->journal, Journal, _file);
    if ((PyObject *)Py_TYPE(file) != the_Descriptor)
        return 0;
    PyObject *noted = GET(file, Descriptor, _noted), *identity = GET(file, Descriptor, identity);
    if (!PyList_CheckExact(noted) || PyList_GET_SIZE(noted) != 1 || number(PyList_GET_ITEM(noted, 0)) != place->fd)
        return 0;
    if (!PyTuple_CheckExact(identity) || PyTuple_GET_SIZE(identity) != 3)
        return 0;
    struct stat status;
    return !fstat(place->fd, &status) && (long long)status.st_dev == number(PyTuple_GET_ITEM(identity, 0)) &&
           (long long)status.st_ino == number(PyTuple_GET_ITEM(identity, 1)) &&
           fcntl(place->fd, F_GETFL) == number(PyTuple_GET_ITEM(identity, 2));
}

/* Read *length* bytes from *offset* on. NULL, without an exception, if that fails. */
static char *
read_bytes(int fd, long long offset, size_t length)
{
    char *data = PyMem_Malloc(length);
    size_t got = 0;
    if (!data)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
        while (got < length) {
            ssize_t more = pread(fd, data + got, length - got, (off_t)(offset + (long long)got));
            if (more <= 0)
                break;
            got += (size_t)more;
        }
    Py_END_ALLOW_THREADS
    if (got == length)
        return data;
    PyMem_Free(data);
    return NULL;
}

/* At most so many bytes are read at once; Python reads more. */
#define LONGEST_READ (64 << 20)

/* The tuple that becomes memory's view after commits of others. It must exist before the first check. */
static PyObject *spare_view;

static void
make_spare_view(void)
{
    if (!spare_view && !(spare_view = PyTuple_New(5)))
        PyErr_Clear();
}

/* Bring memory from *place* to the end of the file, at *size*: `catch_up`, if the file has grown. */
static int
catch_up_to(const Place *place, long long size)
{
    PyObject *store = place->store, *root = GET(store, Store, root), *trails = GET(place->standing, Standing, trails);
    PyObject *watches = (PyObject *)Py_TYPE(trails) == the_Trails ? GET(trails, Trails, _references) : Py_None;
    if (!PyTuple_CheckExact(watches) || PyTuple_GET_SIZE(watches))
        return NOT_TAKEN; /* the state is watched: each record must be noted */
    if (size < place->end || size - place->end > LONGEST_READ)
        return NOT_TAKEN;
    size_t length = (size_t)(size - place->end);
    char *data = read_bytes(place->fd, place->end, length);
    if (!data)
        return NOT_TAKEN;
    Batch batch = {0};
    uint32_t crc = place->crc;
    long long index = place->index;
    int result = read_all(data, length, &crc, &index, root, &batch);
    if (result == TAKEN) /* another thread may have taken the spare one meanwhile */
        result = spare_view ? fill_view(spare_view, place, size, crc, index) : NOT_TAKEN;
    if (result == TAKEN)
        result = extend_content(place->content, place->end, data, length);
    if (result == TAKEN) {
        PyObject *view = spare_view;
        spare_view = NULL;
        SET(place->standing, Standing, before, place->view);
        SET(store, Store, view, Py_None);
        result = apply_batch(&batch, store);
        if (result == TAKEN)
            SET(store, Store, view, view);
        Py_DECREF(view);
    }
    end_batch(&batch);
    PyMem_Free(data);
    return result;
}

/* `Standing.catch_up`, if only records of scalars follow. Memory is at *place*, the caller has the mutex and has set
 * `_busy`, after `make_spare_view`. */
static int
catch_up(const Place *place)
{
    if (!is_real(GET(place->standing, Standing, fs), name_pread, the_pread) || !is_ours(place))
        return NOT_TAKEN;
    long long size = lseek(place->fd, 0, SEEK_END);
    return size == place->end ? TAKEN : counted(CATCH_UP, catch_up_to(place, size));
}

/* ------------------------------------------------------------------ the lock of the file */

/* Whether the descriptor may be locked. If it was not used for a while, its number may mean another file by now: see
 * `FileLog._is_as_it_was`. */
static inline int
may_lock(const Place *place, double time)
{
    return time < seconds(GET(place->log, FileLog, _sure_until)) ||
           (number(GET(place->journal, Journal, fd)) == place->fd && lseek(place->fd, 0, SEEK_END) == place->end) ||
           is_ours(place);
}

/* Lock the file, and return where it ends; -1 if the lock is not free, and so not held. */
static inline long long
lock_and_measure(int fd)
{
    return flock(fd, LOCK_EX | LOCK_NB) ? -1 : lseek(fd, 0, SEEK_END);
}

/* Note which lock is held, so that Python can release it. */
static inline void
hold(const Place *place)
{
    SET(place->hold, Hold, journal, place->journal);
    SET(place->hold, Hold, unlock, GET(place->journal, Journal, unlock));
}

/* The lock could not be released, because of *error*: `Hold.unlock_again`. Takes the reference. */
static int
unlock_again(PyObject *hold, PyObject *error)
{
    PyObject *is_told = error ? PyObject_CallMethodOneArg(hold, name_unlock_again, error) : NULL;
    int is_true = is_told == Py_True;
    if (is_true)
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    Py_XDECREF(is_told);
    Py_XDECREF(error);
    return is_told && !is_true ? TAKEN : FAILED;
}

/* Release the lock that `hold` has noted. An earlier exception takes precedence. */
static int
give_lock(const Place *place)
{
    Raised raised = put_aside();
    int result = TAKEN;
    PyObject *unlock = GET(place->journal, Journal, unlock);
    if (GET(place->hold, Hold, journal) == place->journal && GET(place->hold, Hold, unlock) == unlock) {
        if (flock(place->fd, LOCK_UN)) {
            int number = errno;
            result = unlock_again(place->hold, PyObject_CallFunction(PyExc_OSError, "is", number, strerror(number)));
        }
    } else {
        /* The log has gone on to another file, with its lock, or the lock has ended with a descriptor. */
        PyObject *done = PyObject_CallNoArgs(unlock = Py_NewRef(GET(place->hold, Hold, unlock)));
        Py_DECREF(unlock);
        result = done ? TAKEN : FAILED;
        Py_XDECREF(done);
    }
    return raise_again(raised) == TAKEN ? result : FAILED;
}

/* ------------------------------------------------------------------ a commit */

/* Write all of *text* where *place* ends, or none of it: a part is cut off, and Python finds out the reason. */
static int
write_record(int fd, const Text *text, long long end)
{
    ssize_t written = write(fd, text->text, text->length);
    if (written == (ssize_t)text->length)
        return TAKEN;
    if (written > 0 && ftruncate(fd, (off_t)end)) {
        /* A torn tail stays; `FileLog` cuts it with the next lock. */
    }
    return NOT_TAKEN;
}

/* One of the times in `limits`. They are looked up each time, because tests change them. */
static inline double
limit(PyObject *name)
{
    PyObject *found = PyDict_GetItemWithError(the_limits, name);
    PyErr_Clear();
    return found && PyFloat_CheckExact(found) ? PyFloat_AS_DOUBLE(found) : 0.0;
}

/* Look at the path after a commit up to *end*: `FileLog._become_current`, if it shows our file, which no other program
 * has written to. NOT_TAKEN if that is not certain. */
static int
look_at_path(const Place *place, long long end)
{
    PyObject *site = GET(place->log, FileLog, site),
             *path = (PyObject *)Py_TYPE(site) == the_Site ? GET(site, Site, path) : Py_None,
             *identity = GET(place->journal, Journal, identity);
    if (!is_real(GET(place->standing, Standing, fs), name_stat, the_stat) ||
        GET(place->journal, Journal, takes_trailer) != Py_True || !PyUnicode_CheckExact(path) || !is_ours(place) ||
        lseek(place->fd, 0, SEEK_END) != end)
        return NOT_TAKEN;
    PyObject *name = PyUnicode_EncodeFSDefault(path);
    if (!name) {
        PyErr_Clear();
        return NOT_TAKEN;
    }
    struct stat status;
    int failed;
    Py_BEGIN_ALLOW_THREADS
        failed = stat(PyBytes_AS_STRING(name), &status);
    Py_END_ALLOW_THREADS
    Py_DECREF(name);
    if (failed || (long long)status.st_dev != number(PyTuple_GET_ITEM(identity, 0)) ||
        (long long)status.st_ino != number(PyTuple_GET_ITEM(identity, 1)))
        return NOT_TAKEN;
    double time = now();
    if (time >= seconds(GET(place->look, Look, check_at)))
        return NOT_TAKEN; /* our own write has moved the time stamp: compare the content */
    PyObject *begin = PyFloat_FromDouble(time + limit(name_look_interval) / 2),
             *commit = PyFloat_FromDouble(time + limit(name_look_interval)), *zero = PyFloat_FromDouble(0.0);
    int result = begin && commit && zero ? TAKEN : NOT_TAKEN;
    if (result == TAKEN) {
        SET(place->look, Look, look_at, begin);
        SET(place->look, Look, look_due, commit);
        SET(place->look, Look, retry_at, zero);
        SET(place->look, Look, trouble, Py_None);
    }
    PyErr_Clear();
    Py_XDECREF(begin);
    Py_XDECREF(commit);
    Py_XDECREF(zero);
    return result;
}

/* `FileLog.publish`: memory is at *view* from now on. Python does what else is due, with the lock. */
static int
publish(const Place *place, PyObject *view)
{
    SET(place->store, Store, view, view);
    double time = now();
    PyObject *sure = PyFloat_FromDouble(time + limit(name_trust));
    if (sure) {
        SET(place->log, FileLog, _sure_until, sure);
        Py_DECREF(sure);
    } else
        PyErr_Clear(); /* the next commit checks the descriptor */
    if (GET(place->log, FileLog, settles) == Py_False && time < seconds(GET(place->look, Look, look_due)))
        return TAKEN;
    if (look_at_path(place, number(PyTuple_GET_ITEM(view, 1))) == TAKEN)
        return TAKEN;
    PyObject *result = PyObject_CallMethodOneArg(place->log, name_publish, view);
    Py_XDECREF(result);
    return result ? TAKEN : FAILED;
}

/* One change that is one commit. */
typedef struct {
    PyObject *node; /* the container that is changed: borrowed */
    PyObject *key;  /* of a dict; NULL: *value* goes to the end of a list */
    PyObject *value;
} Change;

/* The record of *change*, chained to *crc*; sets *crc* to its own checksum. */
static int
encode(Text *text, const Change *change, uint32_t *crc)
{
    PUT_LITERAL(text, RECORD_BEGINS);
    if (change->key)
        PUT_LITERAL(text, "[[\"set\",");
    else
        PUT_LITERAL(text, "[[\"insert\",");
    if (put_path_to(text, change->node) != TAKEN || reserve(text, 1) != TAKEN)
        return NOT_TAKEN;
    PUT_LITERAL(text, ",");
    if ((change->key ? put_string(text, change->key) : put_integer(text, PyList_GET_SIZE(change->node))) != TAKEN ||
        reserve(text, 1) != TAKEN)
        return NOT_TAKEN;
    PUT_LITERAL(text, ",");
    if (put_scalar(text, change->value) != TAKEN || reserve(text, 2 + AFTER_BODY) != TAKEN)
        return NOT_TAKEN;
    PUT_LITERAL(text, "]]");
    *crc = end_record(text, *crc);
    return TAKEN;
}

/* Whether *change* can be applied to memory as it is; the caller has the mutex. */
static int
fits(const Change *change)
{
    if (change->key)
        return holds_no_node(change->node, change->key);
    return number(GET(change->node, MappedList, _size)) == PyList_GET_SIZE(change->node); /* no code has bypassed us */
}

static int
apply(PyObject *store, const Change *change)
{
    if (change->key) {
        if (PyDict_SetItem(change->node, change->key, change->value) < 0)
            return FAILED;
        return change->node == GET(store, Store, root) ? mirror(store, change->key, change->value) : TAKEN;
    }
    return append_to(change->node, change->value);
}

/* The end of `commit`, after the write: apply the change to memory, publish it, and release the lock. */
static int
finish(const Place *place, const Change *change, PyObject *view)
{
    PyObject *store = place->store;
    int result;
    hold(place);
    SET(place->standing, Standing, before, place->view);
    SET(store, Store, view, Py_None);
    result = apply(store, change);
    if (result == TAKEN)
        result = publish(place, view);
    return give_lock(place) == TAKEN ? result : FAILED;
}

/* Lock the file, unless it *is_locked* already, and write *text* where *place* ends. Returns where the file ended; -1
 * if the lock is not free. *result* says whether the record was written. */
static long long
write_locked(const Place *place, const Text *text, int is_locked, int *result)
{
    long long size;
    Py_BEGIN_ALLOW_THREADS
        size = is_locked ? lseek(place->fd, 0, SEEK_END) : lock_and_measure(place->fd);
        *result = size == place->end ? write_record(place->fd, text, place->end) : NOT_TAKEN;
    Py_END_ALLOW_THREADS
    return size;
}

/* Make *change* a record after *place*, which `takes_record`; *view* becomes the view after it. Returns as
 * `write_locked`; *result* is that of all steps. */
static long long
commit_at(const Place *place, const Change *change, PyObject *view, int is_locked, int *result)
{
    Text text;
    uint32_t crc = place->crc;
    long long size = -1;
    begin_text(&text);
    *result = encode(&text, change, &crc);
    long long end = place->end + (long long)text.length;
    if (*result == TAKEN && end >= number(GET(place->journal, Journal, vacuum_at)))
        *result = NOT_TAKEN;
    if (*result == TAKEN)
        *result = fill_view(view, place, end, crc, place->index + 1);
    if (*result == TAKEN)
        *result = extend_content(place->content, place->end, text.text, text.length);
    if (*result == TAKEN) {
        SET(place->store, Store, _busy, Py_True);
        size = write_locked(place, &text, is_locked, result);
        if (*result == TAKEN)
            *result = finish(place, change, view);
        else
            cut_content(place->content, place->end);
        SET(place->store, Store, _busy, Py_False);
    } else if (is_locked)
        size = place->end;
    end_text(&text);
    return size;
}

/* `Store.put` and `Store.mutate`, with the mutex. *view* is an empty tuple. */
static int
commit(PyObject *store, const Change *change, PyObject *view)
{
    Place place = {0};
    int result;
    double time = now();
    if (GET(store, Store, changes) != Py_None || GET(store, Store, _busy) != Py_False)
        return NOT_TAKEN;
    if (find_place(store, &place) != TAKEN || !takes_record(&place) || !fits(change) || !has_looked(&place, time) ||
        !may_lock(&place, time))
        return NOT_TAKEN;
    PyObject *seen = Py_NewRef(place.view); /* with its journal, and the descriptor */
    long long size = commit_at(&place, change, view, 0, &result);
    if (result == NOT_TAKEN && size > place.end) {
        /* Others have committed. Catch up first, and try once more, with the lock that is held. */
        SET(store, Store, _busy, Py_True);
        result = catch_up(&place);
        SET(store, Store, _busy, Py_False);
        if (result == TAKEN) {
            result = NOT_TAKEN;
            if (find_place(store, &place) == TAKEN && takes_record(&place) && fits(change))
                commit_at(&place, change, view, 1, &result);
        } else if (result == FAILED)
            flock(place.fd, LOCK_UN);
    }
    if (result == NOT_TAKEN && size >= 0)
        flock(place.fd, LOCK_UN);
    Py_DECREF(seen);
    return result;
}

/* ------------------------------------------------------------------ stable storage */

/* Begin a sync that other threads can wait for: `Settling.settle`, if none is under way. Returns the lock that this
 * thread holds until the end of it; NULL, without an exception, if Python has to handle it. */
static PyObject *
begin_sync(PyObject *settling)
{
    PyObject *turn = Py_NewRef(GET(settling, Settling, _turn)), *mine = PyObject_CallNoArgs(the_RLock);
    int result = mine ? take_mutex(mine) : NOT_TAKEN;
    if (result == TAKEN)
        result = take_mutex(turn);
    if (result == TAKEN) {
        if (GET(settling, Settling, _under_way) == Py_None)
            SET(settling, Settling, _under_way, mine);
        else
            result = NOT_TAKEN;
        release(turn);
    }
    if (result != TAKEN) {
        PyErr_Clear();
        Py_CLEAR(mine);
    }
    Py_DECREF(turn);
    return mine;
}

/* Let the other threads go on. Between these two steps no Python code runs, so `_turn` is not needed. A sync that has
 * *failed* still counts as under way, as in Python: the next thread does not wait, and checks whether it may sync. */
static void
end_sync(PyObject *settling, PyObject *mine, int failed)
{
    Raised raised = put_aside();
    release(mine);
    if (!failed && GET(settling, Settling, _under_way) == mine)
        SET(settling, Settling, _under_way, Py_None);
    raise_again(raised);
}

/* `Settling._sync`: FAILED with its exception. */
static int
sync_file(PyObject *settling, const Place *place)
{
    int failed, number = 0;
    do {
        Py_BEGIN_ALLOW_THREADS
#ifdef __linux__
            failed = fdatasync(place->fd);
#else
            failed = fsync(place->fd);
#endif
            number = errno;
        Py_END_ALLOW_THREADS
        if (!failed)
            return TAKEN;
        if (number == EINTR && PyErr_CheckSignals() < 0)
            return FAILED;
    } while (number == EINTR);
    PyObject *error = PyObject_CallFunction(PyExc_OSError, "is", number, strerror(number)), *result = NULL;
    if (error) {
        /* Noted before Python code runs: a signal handler may raise there, and the next sync would succeed. */
        SET(place->journal, Journal, unjudged, error);
        SET(place->look, Look, look_at, number_zero);
        SET(place->look, Look, look_due, number_zero);
        result = PyObject_CallMethodObjArgs(settling, name_failed, place->journal, error, NULL);
    }
    Py_XDECREF(error);
    Py_XDECREF(result);
    return result ? TAKEN : FAILED;
}

/* Whether the state of memory may be synced, with nothing else due. After a sync that has failed it may not, also if
 * that failure was not judged yet. */
static int
may_sync(PyObject *store, PyObject *settling, Place *place)
{
    return find_place(store, place) == TAKEN && GET(place->log, FileLog, settling) == settling &&
           GET(place->journal, Journal, folder_due) == Py_False &&
           GET(place->journal, Journal, refusal) == text_nothing && GET(place->journal, Journal, unjudged) == Py_None;
}

/* Sync all commits, for this thread and for those that wait. */
static int
settle_newest(PyObject *store, PyObject *settling)
{
    Place place;
    if (!is_real(GET(settling, Settling, _fs), name_sync_data, the_sync_data) || !may_sync(store, settling, &place))
        return NOT_TAKEN;
    PyObject *mine = begin_sync(settling);
    if (!mine)
        return NOT_TAKEN;
    int result = NOT_TAKEN;
    /* Finalizers may have run, and other threads. */
    if (may_sync(store, settling, &place) && is_ours(&place)) {
        PyObject *newest = Py_NewRef(place.view), *base = Py_NewRef(GET(place.journal, Journal, base));
        result = sync_file(settling, &place);
        /* Not if the document has changed meanwhile: its end may be before the one that was synced. */
        if (result == TAKEN && GET(place.journal, Journal, base) == base)
            SET(place.journal, Journal, synced, PyTuple_GET_ITEM(newest, 1));
        Py_DECREF(newest);
        Py_DECREF(base);
    }
    end_sync(settling, mine, result == FAILED);
    Py_DECREF(mine);
    return result;
}

/* After a commit up to *view*, with all locks released: bring it to stable storage, with durability "power". */
static int
settle(PyObject *store, PyObject *view)
{
    PyObject *log = GET(store, Store, log), *settling, *result, *journal = PyTuple_GET_ITEM(view, 4);
    if (GET(log, FileLog, settles) == Py_False ||
        number(GET(journal, Journal, synced)) >= number(PyTuple_GET_ITEM(view, 1)))
        return TAKEN; /* another thread may have synced for us */
    settling = Py_NewRef(GET(log, FileLog, settling));
    int done = (PyObject *)Py_TYPE(settling) == the_Settling ? settle_newest(store, settling) : NOT_TAKEN;
    if (counted(SETTLE, done) != FAILED) {
        /* Python's `settle` handles the rest if that was not possible, or if it was another file by then. */
        if (done == NOT_TAKEN || number(GET(journal, Journal, synced)) < number(PyTuple_GET_ITEM(view, 1))) {
            result = PyObject_CallMethodOneArg(settling, name_settle, view);
            done = result ? TAKEN : FAILED;
            Py_XDECREF(result);
        }
    }
    Py_DECREF(settling);
    return done;
}

/* ------------------------------------------------------------------ one change */

/* Make *change* one commit, if the case is the usual one. */
static int
change_alone(PyObject *store, const Change *change)
{
    PyObject *view = PyTuple_New(5), *mutex;
    int result = NOT_TAKEN;
    make_spare_view();
    if (!view) {
        PyErr_Clear();
        return NOT_TAKEN;
    }
    mutex = Py_NewRef(GET(store, Store, mutex));
    result = take_mutex(mutex);
    if (result == TAKEN) {
        result = commit(store, change, view);
        if (give_mutex(mutex) != TAKEN)
            result = FAILED;
    }
    if (result == TAKEN)
        result = settle(store, view);
    Py_DECREF(mutex);
    Py_DECREF(view);
    return result;
}

/* ------------------------------------------------------------------ a transaction */

/* The path from the root to *node* as a list. NULL, without an exception, if it is not an easy one. */
static PyObject *
path_of(PyObject *node)
{
    PyObject *keys[DEEPEST];
    int depth = keys_to(node, keys);
    if (depth < 0)
        return NULL;
    PyObject *path = PyList_New(depth);
    if (!path || keys_to(node, keys) != depth) { /* finalizers may have run, and taken it out */
        PyErr_Clear();
        Py_XDECREF(path);
        return NULL;
    }
    for (int i = 0; i < depth; i++)
        PyList_SET_ITEM(path, i, Py_NewRef(keys[depth - 1 - i]));
    return path;
}

/* Whether *path* is still the one to *node*. */
static int
leads_to(PyObject *path, PyObject *node)
{
    PyObject *keys[DEEPEST];
    int depth = keys_to(node, keys);
    if (depth != PyList_GET_SIZE(path))
        return 0;
    for (int i = 0; i < depth; i++)
        if (PyList_GET_ITEM(path, i) != keys[depth - 1 - i])
            return 0;
    return 1;
}

/* Whether the open transaction of *store* is ours, and in order. */
static inline int
is_in_order(PyObject *store)
{
    return is_me(GET(store, Store, owner)) && (PyObject *)Py_TYPE(GET(store, Store, changes)) == the_Pending;
}

/* Set *value* under *key* in memory; `_interrupted` is true while that is unfinished. */
static int
set_in_transaction(PyObject *store, PyObject *node, PyObject *key, PyObject *value)
{
    if (PyDict_SetItem(node, key, value) < 0)
        return FAILED;
    if (node == GET(store, Store, root) && mirror(store, key, value) != TAKEN)
        return FAILED;
    SET(store, Store, _interrupted, Py_False);
    return TAKEN;
}

/* `Pending.put`: note a first change of this item, whose parts the caller has made. */
static int
note_change(PyObject *store, PyObject *pair, PyObject *undo, PyObject *operation)
{
    PyObject *changes = GET(store, Store, changes);
    if (PyList_Append(GET(changes, Pending, undo), undo) < 0)
        return FAILED;
    if (PyDict_SetItem(GET(changes, Pending, latest), pair, operation) < 0)
        return FAILED;
    return PyList_Append(GET(changes, Pending, operations), operation) < 0 ? FAILED : TAKEN;
}

/* Note the view that the record will follow: `FileLog.prepare`, if it has nothing else to do. */
static int
prepare(PyObject *store)
{
    Place place;
    if (GET(store, Store, _base_view) != Py_None)
        return TAKEN;
    if (find_place(store, &place) != TAKEN || !takes_record(&place))
        return NOT_TAKEN;
    SET(store, Store, _base_view, place.view);
    return TAKEN;
}

/* ["set", path, key, value], and (node, ("set", key, old)) or (node, ("delete", key)). */
static int
make_notes(PyObject *node, PyObject *key, PyObject *value, PyObject **operation, PyObject **undo)
{
    PyObject *old = Py_XNewRef(PyDict_GetItemWithError(node, key)), *inverse = NULL, *path = path_of(node);
    *operation = path ? PyList_New(4) : NULL;
    if (*operation) {
        PyObject *items[4] = {name_set, path, key, value};
        for (int i = 0; i < 4; i++)
            PyList_SET_ITEM(*operation, i, Py_NewRef(items[i]));
        inverse = old ? PyTuple_Pack(3, name_set, key, old) : PyTuple_Pack(2, name_delete, key);
    }
    *undo = inverse ? PyTuple_Pack(2, node, inverse) : NULL;
    Py_XDECREF(path);
    Py_XDECREF(inverse);
    Py_XDECREF(old);
    PyErr_Clear();
    return *undo ? TAKEN : NOT_TAKEN;
}

/* `Store._put_in_transaction`. The references that the caller has to *operation* and *undo* may be NULL. */
static int
put_noted(PyObject *store, PyObject *node, PyObject *key, PyObject *value, PyObject *pair, PyObject **operation,
          PyObject **undo)
{
    PyObject *latest = PyDict_GetItemWithError(GET(GET(store, Store, changes), Pending, latest), pair);
    PyErr_Clear();
    if (latest) {
        if (!PyList_CheckExact(latest) || PyList_GET_SIZE(latest) != 4)
            return NOT_TAKEN;
        SET(store, Store, _interrupted, Py_True);
        PyList_SetItem(latest, 3, Py_NewRef(value));
        return set_in_transaction(store, node, key, value);
    }
    if (make_notes(node, key, value, operation, undo) != TAKEN)
        return NOT_TAKEN;
    /* Finalizers may have run. */
    if (!is_in_order(store) || !holds_no_node(node, key))
        return NOT_TAKEN;
    PyObject *old = PyDict_GetItemWithError(node, key), *inverse = PyTuple_GET_ITEM(*undo, 1);
    PyErr_Clear();
    if ((PyTuple_GET_SIZE(inverse) == 3 ? PyTuple_GET_ITEM(inverse, 2) : NULL) != old ||
        !leads_to(PyList_GET_ITEM(*operation, 1), node))
        return NOT_TAKEN;
    if (prepare(store) != TAKEN)
        return NOT_TAKEN;
    SET(store, Store, _interrupted, Py_True);
    SET(store, Store, view, Py_None);
    if (note_change(store, pair, *undo, *operation) != TAKEN)
        return FAILED;
    return set_in_transaction(store, node, key, value);
}

static int
put_in_transaction(PyObject *store, PyObject *node, PyObject *key, PyObject *value)
{
    node = target_of(store, node);
    PyObject *id = PyLong_FromVoidPtr(node), *pair = id ? PyTuple_Pack(2, id, key) : NULL, *operation = NULL,
             *undo = NULL;
    int result = NOT_TAKEN;
    if (!pair)
        PyErr_Clear();
    else if (is_in_order(store))
        result = put_noted(store, node, key, value, pair, &operation, &undo);
    if (result == FAILED)
        SET(store, Store, owner, number_zero); /* it is no longer in order, as `_interrupted` says */
    Py_XDECREF(id);
    Py_XDECREF(pair);
    Py_XDECREF(operation);
    Py_XDECREF(undo);
    return result;
}

/* Set an item of a dict to a scalar: `Store.put`. */
static int
put(PyObject *node, PyObject *key, PyObject *value)
{
    PyObject *store = GET(node, MappedDict, _store);
    if ((PyObject *)Py_TYPE(store) != the_Store || (PyObject *)Py_TYPE(GET(store, Store, log)) != the_FileLog)
        return NOT_TAKEN;
    if (!is_simple(value) || !PyUnicode_CheckExact(key) || !PyUnicode_IS_COMPACT_ASCII(key))
        return NOT_TAKEN;
    int result;
    Py_INCREF(store);
    if (is_me(GET(store, Store, owner)))
        result = counted(PUT_IN_TRANSACTION, put_in_transaction(store, node, key, value));
    else {
        Change change = {target_of(store, node), key, value};
        Py_INCREF(change.node);
        result = change_alone(store, &change);
        Py_DECREF(change.node);
    }
    Py_DECREF(store);
    return result;
}

/* A new `Pending`, as its `__init__` makes it. */
static PyObject *
new_pending(void)
{
    PyTypeObject *type = (PyTypeObject *)the_Pending;
    PyObject *pending = type->tp_alloc(type, 0), *operations = PyList_New(0), *undo = PyList_New(0),
             *ordered = PySet_New(NULL), *latest = PyDict_New();
    if (pending && operations && undo && ordered && latest) {
        SET(pending, Pending, operations, operations);
        SET(pending, Pending, undo, undo);
        SET(pending, Pending, ordered, ordered);
        SET(pending, Pending, latest, latest);
        SET(pending, Pending, depth, number_one);
        SET(pending, Pending, left, Py_None);
        SET(pending, Pending, spoiled, text_nothing);
    } else {
        Py_CLEAR(pending);
        PyErr_Clear();
    }
    Py_XDECREF(operations);
    Py_XDECREF(undo);
    Py_XDECREF(ordered);
    Py_XDECREF(latest);
    return pending;
}

/* `Store.enter`, with the mutex: lock the file, catch up, and make *changes* the open transaction. */
static int
begin_block(PyObject *store, PyObject *changes, PyObject *mutex, PyObject *thread)
{
    Place place;
    double time = now();
    if (GET(store, Store, changes) != Py_None || GET(store, Store, _busy) != Py_False)
        return NOT_TAKEN;
    if (find_place(store, &place) != TAKEN || !takes_record(&place) || !has_looked(&place, time) ||
        !may_lock(&place, time))
        return NOT_TAKEN;
    if (GET(place.log, FileLog, settles) != Py_False && number(GET(place.journal, Journal, synced)) < place.end)
        return NOT_TAKEN; /* values that the block reads must be on stable storage */
    PyObject *since = PyFloat_FromDouble(time);
    if (!since) {
        PyErr_Clear();
        return NOT_TAKEN;
    }
    long long size = lock_and_measure(place.fd);
    int result = size == place.end ? TAKEN : NOT_TAKEN;
    if (size > place.end && GET(place.log, FileLog, settles) == Py_False) {
        SET(store, Store, _busy, Py_True);
        result = catch_up(&place);
        SET(store, Store, _busy, Py_False);
    }
    if (result == TAKEN) {
        hold(&place);
        SET(store, Store, _base_view, Py_None);
        SET(store, Store, _interrupted, Py_False);
        SET(store, Store, ended, number_zero);
        SET(changes, Pending, since, since);
        SET(changes, Pending, thread, thread);
        SET(changes, Pending, mutex, mutex);
        SET(store, Store, changes, changes);
        SET(store, Store, owner, thread);
    } else if (size >= 0)
        flock(place.fd, LOCK_UN);
    Py_DECREF(since);
    return result;
}

/* Whether threads are told apart as at our import: gevent may have replaced them since. */
static int
is_unpatched(void)
{
    PyObject *found = PyDict_GetItemWithError(the_threads, name_get_ident);
    PyErr_Clear();
    return found == the_get_ident;
}

/* `Transaction.__enter__`, of an outermost block. */
static int
enter(PyObject *self)
{
    PyObject *store = GET(self, Transaction, _core);
    if ((PyObject *)Py_TYPE(store) != the_Store || GET(self, Transaction, _changes) != Py_None ||
        GET(store, Store, changes) != Py_None || GET(store, Store, closed) != Py_False || !is_unpatched())
        return NOT_TAKEN;
    PyObject *thread = PyLong_FromUnsignedLong(PyThread_get_thread_ident()), *changes = new_pending(),
             *mutex = Py_NewRef(GET(store, Store, mutex));
    int result = NOT_TAKEN;
    make_spare_view();
    if (!thread || !changes)
        PyErr_Clear();
    else if (PySet_Contains(the_noticed, thread) == 1 && (result = take_mutex(mutex)) == TAKEN) {
        result = begin_block(store, changes, mutex, thread);
        if (result == TAKEN) {
            SET(self, Transaction, _mark, Py_None);
            SET(self, Transaction, _changes, changes);
        } else if (give_mutex(mutex) == FAILED)
            result = FAILED;
    }
    Py_XDECREF(thread);
    Py_XDECREF(changes);
    Py_DECREF(mutex);
    return result;
}

/* `records.encode_body` of sets of scalars. */
static int
encode_block(Text *text, PyObject *operations)
{
    if (!PyList_CheckExact(operations) || !PyList_GET_SIZE(operations))
        return NOT_TAKEN;
    PUT_LITERAL(text, RECORD_BEGINS "[");
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(operations); i++) {
        PyObject *operation = PyList_GET_ITEM(operations, i);
        if (!PyList_CheckExact(operation) || PyList_GET_SIZE(operation) != 4)
            return NOT_TAKEN;
        PyObject *name = PyList_GET_ITEM(operation, 0);
        if (name != name_set && !(PyUnicode_CheckExact(name) && PyUnicode_CompareWithASCIIString(name, "set") == 0))
            return NOT_TAKEN;
        if (reserve(text, 9) != TAKEN)
            return NOT_TAKEN;
        if (i)
            PUT_LITERAL(text, ",");
        PUT_LITERAL(text, "[\"set\",");
        if (put_path(text, PyList_GET_ITEM(operation, 1)) != TAKEN || reserve(text, 1) != TAKEN)
            return NOT_TAKEN;
        PUT_LITERAL(text, ",");
        if (put_key(text, PyList_GET_ITEM(operation, 2)) != TAKEN || reserve(text, 1) != TAKEN)
            return NOT_TAKEN;
        PUT_LITERAL(text, ",");
        if (put_scalar(text, PyList_GET_ITEM(operation, 3)) != TAKEN || reserve(text, 2 + AFTER_BODY) != TAKEN)
            return NOT_TAKEN;
        PUT_LITERAL(text, "]");
    }
    PUT_LITERAL(text, "]");
    return TAKEN;
}

/* `Store.commit_block`, up to the change of the view. */
static int
write_block(PyObject *store, PyObject *changes, Place *place, PyObject *view)
{
    Text text;
    PyObject *base = GET(store, Store, _base_view); /* memory is ahead of it; None if nothing was changed */
    if (find_place_of(store, base, place) != TAKEN || !takes_record(place))
        return NOT_TAKEN;
    begin_text(&text);
    int result = encode_block(&text, GET(changes, Pending, operations));
    if (result == TAKEN) {
        uint32_t crc = end_record(&text, place->crc);
        long long end = place->end + (long long)text.length;
        if (end >= number(GET(place->journal, Journal, vacuum_at)) || lseek(place->fd, 0, SEEK_END) != place->end ||
            !has_looked(place, now()))
            result = NOT_TAKEN;
        if (result == TAKEN)
            result = fill_view(view, place, end, crc, place->index + 1);
        if (result == TAKEN)
            result = extend_content(place->content, place->end, text.text, text.length);
        if (result == TAKEN) {
            /* Until the end, so that no other thread takes the transaction over, see `Store._take_over`. */
            SET(store, Store, owner, number_zero);
            SET(store, Store, _busy, Py_True);
            Py_BEGIN_ALLOW_THREADS
                result = write_record(place->fd, &text, place->end);
            Py_END_ALLOW_THREADS
            if (result == TAKEN)
                SET(place->standing, Standing, before, base);
            else {
                cut_content(place->content, place->end);
                SET(store, Store, _busy, Py_False);
                SET(store, Store, owner, GET(changes, Pending, thread));
            }
        }
    }
    end_text(&text);
    return result;
}

/* `Transaction.__exit__` of an outermost block that has not failed: `Store.end`. */
static int
leave(PyObject *self)
{
    PyObject *view = PyTuple_New(5); /* first: finalizers may run */
    PyObject *store = GET(self, Transaction, _core), *changes = GET(self, Transaction, _changes);
    if (!view) {
        PyErr_Clear();
        return NOT_TAKEN;
    }
    if ((PyObject *)Py_TYPE(store) != the_Store || (PyObject *)Py_TYPE(changes) != the_Pending ||
        GET(self, Transaction, _mark) != Py_None || GET(store, Store, changes) != changes || !is_in_order(store) ||
        number(GET(changes, Pending, depth)) != 1 || GET(changes, Pending, spoiled) != text_nothing) {
        Py_DECREF(view);
        return NOT_TAKEN;
    }
    Place place;
    Py_INCREF(store);
    Py_INCREF(changes);
    int result = write_block(store, changes, &place, view);
    if (result == TAKEN) {
        PyObject *base = Py_NewRef(place.view), *mutex = Py_NewRef(GET(changes, Pending, mutex));
        result = publish(&place, view);
        SET(store, Store, owner, number_zero);
        SET(store, Store, _base_view, Py_None);
        SET(store, Store, ended, number_zero);
        if (give_lock(&place) != TAKEN)
            result = FAILED;
        SET(store, Store, changes, Py_None);
        SET(store, Store, _busy, Py_False);
        if (give_mutex(mutex) != TAKEN)
            result = FAILED;
        SET(self, Transaction, _changes, Py_None);
        Py_DECREF(base);
        Py_DECREF(mutex);
        if (result == TAKEN)
            result = settle(store, view);
    }
    Py_DECREF(changes);
    Py_DECREF(store);
    Py_DECREF(view);
    return result;
}

/* ------------------------------------------------------------------ the methods that replace Python's */

/* The Python functions for all other cases. */
/* clang-format off */
#define METHODS(X)                                                                                                     \
    X(MappedDict, __getitem__) X(MappedDict, __getattr__) X(MappedDict, __setitem__) X(MappedDict, __setattr__)        \
    X(MappedDict, get) X(MappedList, __getitem__) X(MappedList, append) X(FileLog, fresh) X(FileLog, fresh_durable)    \
    X(Standing, catch_up) X(Transaction, __enter__) X(Transaction, __exit__) X(format, read_records) X(ops, replay)
/* clang-format on */

#define DECLARE(type, name) static PyObject *python_##type##_##name;
METHODS(DECLARE)
#undef DECLARE

/* Apply commits of others to memory: `Store.read`, if they are records of scalars. */
static int
refresh(PyObject *store)
{
    PyObject *mutex = Py_NewRef(GET(store, Store, mutex));
    Place place;
    make_spare_view();
    int result = take_mutex(mutex);
    if (result == TAKEN) {
        result = NOT_TAKEN;
        if (GET(store, Store, changes) == Py_None && GET(store, Store, _busy) == Py_False &&
            find_place(store, &place) == TAKEN && GET(place.log, FileLog, settles) == Py_False && find_more(&place) &&
            has_looked(&place, now())) {
            PyObject *seen = Py_NewRef(place.view);
            SET(store, Store, _busy, Py_True);
            result = catch_up(&place);
            SET(store, Store, _busy, Py_False);
            Py_DECREF(seen);
        }
        if (give_mutex(mutex) != TAKEN)
            result = FAILED;
    }
    Py_DECREF(mutex);
    return result;
}

/* Whether memory may be read as it is: in our own transaction, or when it is the newest commit. */
static int
may_read(PyObject *store)
{
    Place place;
    if ((PyObject *)Py_TYPE(store) != the_Store)
        return NOT_TAKEN;
    if (GET(store, Store, view) == Py_None)
        return is_me(GET(store, Store, owner)) ? TAKEN : NOT_TAKEN; /* with the changes of our transaction */
    if (find_place(store, &place) != TAKEN)
        return NOT_TAKEN;
    if (is_fresh(&place))
        return TAKEN;
    if (!has_looked(&place, now()))
        return NOT_TAKEN;
    Py_INCREF(store);
    int result = refresh(store);
    if (result == TAKEN && !(find_place(store, &place) == TAKEN && is_fresh(&place)))
        result = NOT_TAKEN; /* others have committed again */
    Py_DECREF(store);
    return result;
}

/* Find the item *key* of the dict *self*: a new reference, or NULL if there is none. NOT_TAKEN if only Python can
 * tell. */
static inline int
read_item(PyObject *self, PyObject *key, PyObject **value)
{
    *value = NULL;
    if (!PyUnicode_CheckExact(key))
        return NOT_TAKEN;
    int result = may_read(GET(self, MappedDict, _store));
    if (result == TAKEN) {
        *value = Py_XNewRef(PyDict_GetItemWithError(self, key));
        PyErr_Clear();
    }
    return result;
}

static PyObject *
dict_getitem(PyObject *self, PyObject *key)
{
    PyObject *value;
    int result = counted(READ, read_item(self, key, &value));
    if (value || result == FAILED)
        return value;
    PyObject *arguments[2] = {self, key};
    return PyObject_Vectorcall(python_MappedDict___getitem__, arguments, 2, NULL);
}

static PyObject *
dict_get(PyObject *self, PyObject *const *given, Py_ssize_t count)
{
    PyObject *arguments[4] = {self, NULL, NULL, NULL};
    if (count == 1 || count == 2) {
        PyObject *value;
        int result = counted(READ, read_item(self, given[0], &value));
        if (value || result == FAILED)
            return value;
        if (result == TAKEN)
            return Py_NewRef(count == 2 ? given[1] : Py_None);
    }
    for (Py_ssize_t i = 0; i < count && i < 3; i++)
        arguments[1 + i] = given[i];
    return PyObject_Vectorcall(python_MappedDict_get, arguments, (size_t)(1 + (count < 3 ? count : 3)), NULL);
}

/* Whether *name* may be a key as an attribute: a name that begins with an underscore may not. */
static inline int
may_be_key(PyObject *name)
{
    return PyUnicode_CheckExact(name) && PyUnicode_GET_LENGTH(name) && PyUnicode_READ_CHAR(name, 0) != '_';
}

/* The tp_getattro of a class of states: an attribute, or else an item. Python's own hook first makes an AttributeError
 * for each item, which takes longer than all other steps. */
static PyObject *
dict_getattro(PyObject *self, PyObject *name)
{
    PyObject *value = _PyObject_GenericGetAttrWithDict(self, name, NULL, 1);
    if (value || PyErr_Occurred())
        return value;
    if (may_be_key(name)) {
        int result = counted(READ, read_item(self, name, &value));
        if (value || result == FAILED)
            return value;
    }
    PyObject *arguments[2] = {self, name};
    return PyObject_Vectorcall(python_MappedDict___getattr__, arguments, 2, NULL);
}

static PyObject *descriptor_of_getattr, *descriptor_of_setitem;

/* `__getattr__`, for a *name* that was not found otherwise. It is called for each class only once: from then on, the
 * slot of the class is `dict_getattro`. Not for a subclass with a `__getattr__` or `__getattribute__` of its own, which
 * must be called. If a class gets one later, CPython sets the slot again. */
static PyObject *
dict_getattr(PyObject *self, PyObject *name)
{
    PyTypeObject *type = Py_TYPE(self);
    if (type->tp_getattro != dict_getattro && _PyType_Lookup(type, name_getattr) == descriptor_of_getattr &&
        _PyType_Lookup(type, name_getattribute) == _PyType_Lookup(&PyDict_Type, name_getattribute)) {
        type->tp_getattro = dict_getattro;
        PyType_Modified(type);
    }
    if (may_be_key(name)) {
        PyObject *value;
        int result = counted(READ, read_item(self, name, &value));
        if (value || result == FAILED)
            return value;
    }
    PyObject *arguments[2] = {self, name};
    return PyObject_Vectorcall(python_MappedDict___getattr__, arguments, 2, NULL);
}

static PyObject *
told(int result)
{
    return result == FAILED ? NULL : Py_NewRef(Py_None);
}

static PyObject *
dict_setitem(PyObject *self, PyObject *const *given, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_Format(PyExc_TypeError, "__setitem__ expected 2 arguments, got %zd", count);
        return NULL;
    }
    int result = counted(PUT, put(self, given[0], given[1]));
    if (result != NOT_TAKEN)
        return told(result);
    PyObject *arguments[3] = {self, given[0], given[1]};
    return PyObject_Vectorcall(python_MappedDict___setitem__, arguments, 3, NULL);
}

/* Whether an attribute *name* of *type* is an item, and is set as such: `MappedDict.__setattr__`. */
static int
is_item(PyTypeObject *type, PyObject *name)
{
    if (!may_be_key(name) || _PyType_Lookup(type, name_direct) != Py_True)
        return 0;
    PyObject *reserved = _PyType_Lookup(type, name_reserved);
    if (!reserved || !PyAnySet_Check(reserved))
        return 0;
    int found = PySet_Contains(reserved, name);
    if (found < 0)
        PyErr_Clear();
    return found == 0;
}

/* Whether *value* reaches the store without the `__setitem__` of the class: Python bypasses that for numbers only. A
 * class may have got one of its own later. */
static int
goes_straight(PyTypeObject *type, PyObject *value)
{
    return !PyUnicode_Check(value) || _PyType_Lookup(type, name_setitem) == descriptor_of_setitem;
}

static PyObject *
dict_setattr(PyObject *self, PyObject *const *given, Py_ssize_t count)
{
    if (count != 2) {
        PyErr_Format(PyExc_TypeError, "__setattr__ expected 2 arguments, got %zd", count);
        return NULL;
    }
    if (is_item(Py_TYPE(self), given[0]) && goes_straight(Py_TYPE(self), given[1])) {
        int result = counted(PUT, put(self, given[0], given[1]));
        if (result != NOT_TAKEN)
            return told(result);
    }
    PyObject *arguments[3] = {self, given[0], given[1]};
    return PyObject_Vectorcall(python_MappedDict___setattr__, arguments, 3, NULL);
}

/* The element of *list* at *index*, counted from the end if that is negative: borrowed. NULL if there is none. */
static PyObject *
element_at(PyObject *list, PyObject *index)
{
    Py_ssize_t size = PyList_GET_SIZE(list), at = PyLong_AsSsize_t(index);
    if (at == -1 && PyErr_Occurred()) {
        PyErr_Clear();
        return NULL;
    }
    if (at < 0)
        at += size;
    return at >= 0 && at < size ? PyList_GET_ITEM(list, at) : NULL;
}

static PyObject *
list_getitem(PyObject *self, PyObject *index)
{
    int result = PyLong_CheckExact(index) ? may_read(GET(self, MappedList, _store)) : NOT_TAKEN;
    if (counted(READ, result) == FAILED)
        return NULL;
    PyObject *value = result == TAKEN ? element_at(self, index) : NULL, *arguments[2] = {self, index};
    return value ? Py_NewRef(value) : PyObject_Vectorcall(python_MappedList___getitem__, arguments, 2, NULL);
}

/* `MappedList.append` of a scalar, outside a transaction. */
static int
append(PyObject *self, PyObject *value)
{
    PyObject *store = GET(self, MappedList, _store);
    if ((PyObject *)Py_TYPE(self) != the_MappedList || (PyObject *)Py_TYPE(store) != the_Store ||
        (PyObject *)Py_TYPE(GET(store, Store, log)) != the_FileLog || !is_simple(value))
        return NOT_TAKEN;
    Change change = {self, NULL, value};
    Py_INCREF(store);
    int result = change_alone(store, &change);
    Py_DECREF(store);
    return result;
}

static PyObject *
list_append(PyObject *self, PyObject *value)
{
    int result = counted(APPEND, append(self, value));
    if (result != NOT_TAKEN)
        return told(result);
    PyObject *arguments[2] = {self, value};
    return PyObject_Vectorcall(python_MappedList_append, arguments, 2, NULL);
}

/* `FileLog.fresh`, and `FileLog.fresh_durable`. */
static PyObject *
ask_fresh(PyObject *self, PyObject *python)
{
    Place place;
    if (find_place(GET(self, FileLog, memory), &place) != TAKEN || place.log != self)
        return PyObject_Vectorcall(python, &self, 1, NULL);
    return Py_NewRef(is_fresh(&place) ? place.view : Py_None);
}

static PyObject *
log_fresh(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    return ask_fresh(self, python_FileLog_fresh);
}

static PyObject *
log_fresh_durable(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    return ask_fresh(self, python_FileLog_fresh_durable);
}

/* `Standing.catch_up`. Its caller has the mutex, and has set `_busy`. */
static PyObject *
standing_catch_up(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    Place place;
    int result = NOT_TAKEN;
    make_spare_view();
    if (find_place(GET(self, Standing, memory), &place) == TAKEN && find_more(&place) && place.standing == self) {
        PyObject *seen = Py_NewRef(place.view);
        result = catch_up(&place);
        Py_DECREF(seen);
    }
    if (result == NOT_TAKEN)
        return PyObject_Vectorcall(python_Standing_catch_up, &self, 1, NULL);
    return result == TAKEN ? PyBytes_FromStringAndSize(NULL, 0) : NULL;
}

/* `format.read_records`: the bodies of whole records. Python judges bytes that are not a record as we write it. */
static PyObject *
format_read_records(PyObject *Py_UNUSED(module), PyObject *const *given, Py_ssize_t count)
{
    if (count != 3 || !PyBytes_CheckExact(given[0]) || !PyLong_CheckExact(given[1]) || !PyLong_CheckExact(given[2]))
        return PyObject_Vectorcall(python_format_read_records, given, (size_t)count, NULL);
    const char *data = PyBytes_AS_STRING(given[0]), *end = data + PyBytes_GET_SIZE(given[0]);
    long long start = number(given[1]);
    if (start < 0 || start > end - data)
        return PyObject_Vectorcall(python_format_read_records, given, (size_t)count, NULL);
    const char *at = data + start, *before = at;
    uint32_t crc = (uint32_t)number(given[2]), crc_before = crc;
    PyObject *bodies = PyList_New(0);
    Reader body;
    for (; bodies && read_record(&at, end, &crc, &body) == TAKEN; before = at, crc_before = crc) {
        PyObject *text = body.end != body.at && body.end[-1] == '\r'
                             ? NULL
                             : PyUnicode_DecodeUTF8(body.at, body.end - body.at, NULL);
        if (!text) {
            if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_UnicodeDecodeError))
                Py_CLEAR(bodies);
            else
                PyErr_Clear();
            break;
        }
        if (PyList_Append(bodies, text) < 0)
            Py_CLEAR(bodies);
        Py_DECREF(text);
    }
    if (!bodies)
        return NULL;
    /* The rest, which is nearly always empty. */
    PyObject *rest = PyObject_CallFunction(python_format_read_records, "OLk", given[0], (long long)(before - data),
                                           (unsigned long)crc_before),
             *result = NULL;
    if (rest && PyTuple_CheckExact(rest) && PyTuple_GET_SIZE(rest) == 3 &&
        PyList_SetSlice(bodies, PyList_GET_SIZE(bodies), PyList_GET_SIZE(bodies), PyTuple_GET_ITEM(rest, 0)) == 0)
        result = PyTuple_Pack(3, bodies, PyTuple_GET_ITEM(rest, 1), PyTuple_GET_ITEM(rest, 2));
    Py_XDECREF(rest);
    Py_DECREF(bodies);
    return result;
}

/* Apply one record, by its *body*, to the tree *root*, which belongs to the caller. */
static int
replay_body(PyObject *root, PyObject *body, Batch *batch)
{
    empty_batch(batch);
    if (!PyUnicode_CheckExact(body) || !PyUnicode_IS_COMPACT_ASCII(body))
        return NOT_TAKEN;
    const char *text = PyUnicode_DATA(body);
    Reader reader = {text, text + PyUnicode_GET_LENGTH(body)};
    int result = read_body(&reader, root, batch);
    return result == TAKEN ? apply_batch(batch, NULL) : result;
}

/* `ops.replay`: the records that Python has not decoded yet. Python decodes those that are not easy. */
static PyObject *
ops_replay(PyObject *Py_UNUSED(module), PyObject *const *given, Py_ssize_t count)
{
    PyObject *bodies =
        count == 3 && (PyObject *)Py_TYPE(given[1]) == the_Records ? GET(given[1], Records, _bodies) : NULL;
    if (!bodies || !PyList_CheckExact(bodies) || (PyObject *)Py_TYPE(given[0]) != the_MappedDict)
        return PyObject_Vectorcall(python_ops_replay, given, (size_t)count, NULL);
    Batch batch = {0};
    int result = TAKEN;
    Py_INCREF(bodies);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(bodies) && result != FAILED; i++) {
        result = counted(DECODE, replay_body(given[0], PyList_GET_ITEM(bodies, i), &batch));
        if (result == NOT_TAKEN) {
            PyObject *record = PyObject_CallMethod(given[1], "decode", "n", i);
            PyObject *one = record ? PyTuple_Pack(1, record) : NULL;
            PyObject *arguments[3] = {given[0], one, given[2]};
            PyObject *done = one ? PyObject_Vectorcall(python_ops_replay, arguments, 3, NULL) : NULL;
            if (!done)
                result = FAILED;
            Py_XDECREF(done);
            Py_XDECREF(one);
            Py_XDECREF(record);
        }
    }
    end_batch(&batch);
    Py_DECREF(bodies);
    return told(result);
}

static PyObject *
transaction_enter(PyObject *self, PyObject *Py_UNUSED(nothing))
{
    int result = counted(ENTER, enter(self));
    if (result == NOT_TAKEN)
        return PyObject_Vectorcall(python_Transaction___enter__, &self, 1, NULL);
    return result == TAKEN ? Py_NewRef(self) : NULL;
}

static PyObject *
transaction_exit(PyObject *self, PyObject *const *given, Py_ssize_t count)
{
    if (count != 3) {
        PyErr_Format(PyExc_TypeError, "__exit__ expected 3 arguments, got %zd", count);
        return NULL;
    }
    int result = given[0] == Py_None ? counted(LEAVE, leave(self)) : NOT_TAKEN;
    if (result != NOT_TAKEN)
        return told(result);
    PyObject *arguments[4] = {self, given[0], given[1], given[2]};
    return PyObject_Vectorcall(python_Transaction___exit__, arguments, 4, NULL);
}

/* ------------------------------------------------------------------ the module */

/* The functions that `method` can make: class, name, call, and where to note the one that it replaces. */
static struct {
    PyObject **type, **python;
    PyMethodDef definition;
} methods[] = {
#define METHOD(type, name, call, flags, signature)                                                                     \
    {&the_##type,                                                                                                      \
     &python_##type##_##name,                                                                                          \
     {#name, (PyCFunction)(void (*)(void))call, flags, #name signature "\n--\n\n"}}
    METHOD(MappedDict, __getitem__, dict_getitem, METH_O, "($self, key, /)"),
    METHOD(MappedDict, __getattr__, dict_getattr, METH_O, "($self, name, /)"),
    METHOD(MappedDict, __setitem__, dict_setitem, METH_FASTCALL, "($self, key, value, /)"),
    METHOD(MappedDict, __setattr__, dict_setattr, METH_FASTCALL, "($self, name, value, /)"),
    METHOD(MappedDict, get, dict_get, METH_FASTCALL, "($self, key, default=None, /)"),
    METHOD(MappedList, __getitem__, list_getitem, METH_O, "($self, index, /)"),
    METHOD(MappedList, append, list_append, METH_O, "($self, value, /)"),
    METHOD(FileLog, fresh, log_fresh, METH_NOARGS, "($self, /)"),
    METHOD(FileLog, fresh_durable, log_fresh_durable, METH_NOARGS, "($self, /)"),
    METHOD(Standing, catch_up, standing_catch_up, METH_NOARGS, "($self, /)"),
    METHOD(Transaction, __enter__, transaction_enter, METH_NOARGS, "($self, /)"),
    METHOD(Transaction, __exit__, transaction_exit, METH_FASTCALL, "($self, kind, error, traceback, /)"),
    METHOD(format, read_records, format_read_records, METH_FASTCALL, "(data, start, crc, /)"),
    METHOD(ops, replay, ops_replay, METH_FASTCALL, "(root, records, store, /)"),
#undef METHOD
};

/* The offset of the slot *name* of *type*. */
static int
find_slot(PyObject *type, const char *name, Py_ssize_t *offset)
{
    PyObject *descriptor = PyObject_GetAttrString(type, name);
    if (!descriptor)
        return FAILED;
    int is_slot = Py_IS_TYPE(descriptor, &PyMemberDescr_Type) &&
                  ((PyMemberDescrObject *)descriptor)->d_member->type == T_OBJECT_EX;
    if (is_slot)
        *offset = ((PyMemberDescrObject *)descriptor)->d_member->offset;
    else
        PyErr_Format(PyExc_TypeError, "%S.%s is not a slot", type, name);
    Py_DECREF(descriptor);
    return is_slot ? TAKEN : FAILED;
}

/* bind(names): the classes and functions of `NAMES`, by name. */
static PyObject *
bind(PyObject *Py_UNUSED(module), PyObject *names)
{
    if (the_Store) {
        PyErr_SetString(PyExc_ImportError, "pstate was imported twice in one process");
        return NULL;
    }
    if (!PyDict_Check(names)) {
        PyErr_SetString(PyExc_TypeError, "bind() takes a dict of names");
        return NULL;
    }
#define FIND(name)                                                                                                     \
    PyObject *found_##name = PyDict_GetItemString(names, #name);                                                       \
    if (!found_##name)                                                                                                 \
        return PyErr_Format(PyExc_KeyError, "%s", #name);
    NAMES(FIND)
#undef FIND
#define FIND(type, name)                                                                                               \
    if (find_slot(found_##type, #name, &at_##type##_##name) != TAKEN)                                                  \
        return NULL;
    SLOTS(FIND)
#undef FIND
#define KEEP(name) the_##name = Py_NewRef(found_##name);
    NAMES(KEEP)
#undef KEEP
    Py_RETURN_NONE;
}

/* method(type, name, python): the replacement of *python*, which is `type.name`; *type* may be a module. */
static PyObject *
method(PyObject *Py_UNUSED(module), PyObject *given)
{
    PyObject *type, *python;
    const char *name;
    if (!PyArg_ParseTuple(given, "OsO", &type, &name, &python))
        return NULL;
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++)
        if (*methods[i].type == type && !strcmp(methods[i].definition.ml_name, name)) {
            *methods[i].python = Py_NewRef(python);
            PyObject *made = PyType_Check(type) ? PyDescr_NewMethod((PyTypeObject *)type, &methods[i].definition)
                                                : PyCFunction_NewEx(&methods[i].definition, NULL, NULL);
            if (made && methods[i].definition.ml_meth == (PyCFunction)(void (*)(void))dict_getattr)
                descriptor_of_getattr = Py_NewRef(made);
            if (made && methods[i].definition.ml_meth == (PyCFunction)(void (*)(void))dict_setitem)
                descriptor_of_setitem = Py_NewRef(made);
            return made;
        }
    return PyErr_Format(PyExc_LookupError, "%S.%s", type, name);
}

/* counts(): for each function, by name, how many calls were handled here, and how many were left to Python. */
static PyObject *
counts(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(nothing))
{
    PyObject *all = PyDict_New();
    for (int i = 0; all && i < NUMBER_OF_COUNTS; i++) {
        PyObject *pair = Py_BuildValue("LL", taken[i], not_taken[i]);
        if (!pair || PyDict_SetItemString(all, count_names[i], pair) < 0)
            Py_CLEAR(all);
        Py_XDECREF(pair);
    }
    return all;
}

static PyMethodDef functions[] = {{"bind", bind, METH_O, NULL},
                                  {"method", method, METH_VARARGS, NULL},
                                  {"counts", counts, METH_NOARGS, NULL},
                                  {NULL, NULL, 0, NULL}};

static int
execute(PyObject *module)
{
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "the compiled part of pstate does not work in a subinterpreter");
        return -1;
    }
    static const struct {
        PyObject **name;
        const char *text;
    } names[] = {{&name_set, "set"},
                 {&name_delete, "delete"},
                 {&name_reserved, "_reserved"},
                 {&name_direct, "_direct"},
                 {&name_getattr, "__getattr__"},
                 {&name_getattribute, "__getattribute__"},
                 {&name_setitem, "__setitem__"},
                 {&name_get_ident, "get_ident"},
                 {&name_publish, "publish"},
                 {&name_settle, "settle"},
                 {&name_failed, "failed"},
                 {&name_trust, "TRUST"},
                 {&name_pread, "pread"},
                 {&name_stat, "stat"},
                 {&name_sync_data, "sync_data"},
                 {&name_look_interval, "LOOK_INTERVAL"},
                 {&name_unlock_again, "unlock_again"},
                 {&text_nothing, ""}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!*names[i].name && !(*names[i].name = PyUnicode_InternFromString(names[i].text)))
            return -1;
    if (!(number_zero = PyLong_FromLong(0)) || !(number_one = PyLong_FromLong(1)))
        return -1;
    make_crc_table();
    make_plain_table();
    return PyModule_AddStringConstant(module, "SOURCE", PSTATE_SOURCE);
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, (void *)execute},
#if PY_VERSION_HEX >= 0x030C0000
                                   {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
                                   {0, NULL}};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "pstate._speed",
    .m_doc = "The hot path of pstate, compiled. See pstate/speed.py.",
    .m_methods = functions,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__speed(void)
{
    return PyModuleDef_Init(&definition);
}
