"""Where a number came from: versions, revision of the code, device."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from pathlib import Path

from vitrepro import __version__
from vitrepro.record import Environment

PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "pyarrow", "pillow", "datasets")


# glibc: large blocks come from the heap and stay there, in large pages, or every step's activations are mapped, zeroed
# and given back anew
ALLOCATOR = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    "MALLOC_TOP_PAD_": str(1 << 26),
}
KEPT = "large blocks stay with the process (glibc)"


@functools.cache
def git_revision() -> str | None:
    """Commit of the checkout this code runs from, with `+changes` if it was edited; None outside one."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+changes" if changed else "")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()


@functools.cache
def versions() -> dict[str, str]:
    from importlib import metadata

    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@functools.cache
def cpu_name() -> str:
    """The processor's model name and the number of usable cores."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    return f"{name}, {cores()} cores"


def cores() -> int:
    """Processors this process may use: by affinity, and by the quota of a container."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        count = min(count, max(1, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        pass
    return max(1, count)


def cuda_likely() -> bool:
    """Whether an NVIDIA driver is here and not hidden, without asking torch; `verify` asks torch."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "x").strip() in ("", "-1"):
        return False
    return any(Path(p).exists() for p in ("/dev/nvidiactl", "/dev/dxg", r"C:\Windows\System32\nvcuda.dll"))


def environment(device: str, device_name: str, threads: int) -> Environment:
    return Environment(
        vitrepro=__version__,
        git_revision=git_revision(),
        python=platform.python_version(),
        packages=versions(),
        platform=platform.platform(),
        device=device,
        device_name=device_name,
        threads=threads,
    )


def allocator() -> str:
    """How this process keeps the memory that it gives back: as runs start with it, or otherwise."""
    if all(os.environ.get(name) == value for name, value in ALLOCATOR.items()):
        return KEPT
    return "as the system or its user has set it"
