/* The compiled hot path. pstate/speed.py loads it; hatch_build.py compiles it. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#ifndef PSTATE_SOURCE
#define PSTATE_SOURCE "source unknown"
#endif

static int
speed_exec(PyObject *module)
{
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError, "pstate._speed is for the main interpreter only");
        return -1;
    }
    return PyModule_AddStringConstant(module, "SOURCE", PSTATE_SOURCE);
}

static PyModuleDef_Slot speed_slots[] = {
    {Py_mod_exec, (void *)speed_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef speed_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pstate._speed",
    .m_slots = speed_slots,
};

PyMODINIT_FUNC
PyInit__speed(void)
{
    return PyModuleDef_Init(&speed_module);
}
