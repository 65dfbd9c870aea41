"""Compile the CPU kernels when the package is built or installed, once per instruction set.

``$CXX`` names the compiler, otherwise the first of c++, g++ and clang++ is used. With
``FFCONV_BUILD_KERNELS=0``, without a compiler, or where it fails, the package is built without kernels and
plain PyTorch serves.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_FOLDER = Path("src/ffconv/backends/cpu")
_FLAGS = ("-O3", "-std=c++17", "-fopenmp", "-shared", "-fPIC", "-Wno-psabi")
_X86_FLAGS = {
    "avx512": ("-march=x86-64-v4", "-mprefer-vector-width=512"),
    "avx2": ("-march=x86-64-v3",),
    "default": (),
}


class KernelBuildHook(BuildHookInterface):
    """Builds kernels_*.so beside their sources, and makes a wheel of this platform for every Python 3."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the kernels of a wheel or of an editable installation."""
        if self.target_name != "wheel":
            return
        if build_kernels(Path(self.root) / _FOLDER, self.app.display_warning):
            tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{tag}"
            build_data["artifacts"].append(f"/{_FOLDER.as_posix()}/kernels_*.so")


def build_kernels(folder: Path, warn: Callable[[str], None]) -> bool:
    """Compile what is older than its sources; return True if there are kernels then."""
    compiler, reason = _find_compiler()
    if compiler is None:
        for path in folder.glob("kernels_*.so"):
            path.unlink()
        warn(f"ffconv is installed without its CPU kernels and will run in plain PyTorch: {reason}")
        return False
    sources = [*folder.glob("*.hpp"), folder / "library.cpp", Path(__file__)]
    newest = max(path.stat().st_mtime for path in sources)
    is_x86 = platform.machine().lower() in ("x86_64", "amd64")
    runs = []
    for name, flags in (_X86_FLAGS if is_x86 else {"default": ()}).items():
        path = folder / f"kernels_{name}.so"
        if path.exists() and path.stat().st_mtime > newest:
            continue
        fresh = path.with_suffix(
            f".{os.getpid()}.tmp"
        )  # a build that is interrupted leaves no broken library
        command = [compiler, *_FLAGS, *flags, str(folder / "library.cpp"), "-o", str(fresh)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        runs.append((path, fresh, process))
    for path, fresh, process in runs:
        output, _ = process.communicate()
        if process.returncode == 0:
            fresh.replace(path)
        else:
            fresh.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            warn(f"ffconv is installed without {path.name}: {compiler} failed with\n{output.strip()[-2000:]}")
    return any(folder.glob("kernels_*.so"))


def _find_compiler() -> tuple[str | None, str]:
    """Return the compiler, or None and why there is none."""
    if os.environ.get("FFCONV_BUILD_KERNELS", "1") == "0":
        return None, "FFCONV_BUILD_KERNELS is 0"
    if sys.platform == "win32":
        return None, "they are not built on Windows"
    asked = os.environ.get("CXX")
    for name in (asked,) if asked else ("c++", "g++", "clang++"):
        path = shutil.which(name)
        if path:
            return path, ""
    return None, f"there is no compiler {asked}" if asked else "there is no C++ compiler (c++, g++, clang++)"
