"""llama_cpp with nothing but its binding to llama.h.

``llama_cpp/__init__.py`` imports models, chat formats and caches of its own besides, which nothing
here uses and which take a sixth of the time in which a worker imports what it needs. So the package
is made here, before anything imports it: with the names of ``llama_cpp.llama_cpp``, and without
``Llama``.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec, module_from_spec


def _make() -> None:
    spec = find_spec("llama_cpp")
    if spec is None or "llama_cpp" in sys.modules:
        return
    package = module_from_spec(spec)
    sys.modules["llama_cpp"] = package
    try:
        names = vars(import_module("llama_cpp.llama_cpp"))
    except BaseException:
        del sys.modules["llama_cpp"]  # as any import that fails; the next one says why again
        raise
    vars(package).update({name: names[name] for name in names if not name.startswith("_")})


_make()
