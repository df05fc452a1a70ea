"""Builds the compiled core; everything else about the package is in pyproject.toml.

Environment switches, all off by default:
    GRPCLB_DEBUG=1               bounds checks on, optimisation off, symbols kept
    GRPCLB_TRACE=1               line tracing for coverage of the compiled code
    GRPCLB_SANITIZE=address,...  compile and link with these sanitizers
    GRPCLB_ANNOTATE=1            write Cython's annotated HTML beside the generated C
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_py import build_py

SOURCES = Path("ext")
PACKAGE = SOURCES / "grpclb_core" / "native"

DEBUG = os.environ.get("GRPCLB_DEBUG") == "1"
TRACE = os.environ.get("GRPCLB_TRACE") == "1"
ANNOTATE = os.environ.get("GRPCLB_ANNOTATE") == "1"
SANITIZERS = os.environ.get("GRPCLB_SANITIZE", "")

DIRECTIVES = {
    "language_level": 3,
    "binding": False,  # builtin methods: half the cost of a call, and no per-function objects
    "auto_pickle": False,  # a slot or a ticket belongs to one process
    "boundscheck": DEBUG,
    "wraparound": False,
    "initializedcheck": DEBUG,
    "cdivision": True,
    "linetrace": TRACE,
    "warn.unreachable": True,
    # `freethreading_compatible` stays off until a threaded stress test under a sanitizer stands behind it.
}


def compile_flags() -> list[str]:
    if sys.platform == "win32":
        return ["/std:c11", "/experimental:c11atomics"]
    flags = ["-std=c11", "-Wall", "-Wno-unused-function", "-Wno-unused-but-set-variable"]
    flags += ["-O0", "-g"] if DEBUG else ["-O3"]
    return flags + ([f"-fsanitize={SANITIZERS}", "-fno-omit-frame-pointer"] if SANITIZERS else [])


def extensions() -> list[Extension]:
    return [
        Extension(
            f"grpclb_core.native.{source.stem}",
            [source.as_posix()],
            include_dirs=[PACKAGE.as_posix()],
            depends=sorted(path.as_posix() for path in PACKAGE.glob("*.[ph]*")),
            define_macros=[("CYTHON_TRACE_NOGIL", "1")] if TRACE else [],
            extra_compile_args=compile_flags(),
            extra_link_args=[f"-fsanitize={SANITIZERS}"] if SANITIZERS else [],
        )
        for source in sorted(PACKAGE.glob("*.pyx"))
    ]


class BuildWithDeclarations(build_py):
    """Ships the `.pxd` files and the C headers, so that other extensions can cimport the core from a wheel."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for declaration in (*PACKAGE.glob("*.pxd"), *PACKAGE.glob("*.h")):
            self.copy_file(
                declaration.as_posix(), os.path.join(self.build_lib, "grpclb_core", "native", declaration.name)
            )


setup(
    ext_modules=cythonize(
        extensions(),
        include_path=[SOURCES.as_posix()],
        compiler_directives=DIRECTIVES,
        annotate=ANNOTATE,
        build_dir="build/cython",
    ),
    cmdclass={"build_py": BuildWithDeclarations},
)
