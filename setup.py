"""The packages of the wheel: those below `benchbox/`, and the folders that pyproject.toml maps below them."""

import tomllib
from pathlib import Path

from setuptools import find_namespace_packages, setup

MAPPED = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-dir"]
CACHES = ["*__pycache__"]

setup(
    packages=[
        *find_namespace_packages(include=["benchbox", "benchbox.*"], exclude=CACHES),
        *MAPPED,
        *(
            f"{name}.{inner}"
            for name, folder in MAPPED.items()
            for inner in find_namespace_packages(folder, exclude=CACHES)
        ),
    ]
)
