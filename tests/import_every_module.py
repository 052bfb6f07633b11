"""Import every module of the installed package; run by CI in an environment that holds nothing but the wheel."""

import importlib
import pkgutil
import sys

import expunge

names = [module.name for module in pkgutil.walk_packages(expunge.__path__, "expunge.") if "__main__" not in module.name]
for name in names:
    importlib.import_module(name)
print(f"{len(names)} modules imported on Python {sys.version.split()[0]}")
