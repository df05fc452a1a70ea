"""Builds `driver` against the declarations that grpclb_core ships: python setup.py build_ext --inplace"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

import grpclb_core

# An installed grpclb_core has its .pxd and .h files beside its modules; a checkout keeps them under ext/.
declarations = Path(os.environ.get("GRPCLB_DECLARATIONS") or Path(grpclb_core.__file__).parents[1])

setup(
    name="driver",
    ext_modules=cythonize(
        Extension("driver", ["driver.pyx"], include_dirs=[str(declarations / "grpclb_core" / "native")]),
        include_path=[str(declarations)],
        language_level=3,
        build_dir="build",
    ),
)
