"""The version of this package, and of the libraries that decide a result."""

from importlib.metadata import PackageNotFoundError, version

# setup.py reads this line, so that a package shipped as a bare zip knows its version too.
VERSION = "0.1.0"

_LIBRARIES = (
    "pyspark",
    "numpy",
    "pyarrow",
    "opencv-python-headless",
    "pillow",
    "annoy",
    "scipy",
    "ai-edge-litert",
)


def library_versions() -> dict[str, str]:
    """Installed version of each library that can change a result."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found
