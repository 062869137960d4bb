"""Whether a wheel holds every file of the packages that git knows: `python .ci/wheel.py dist/*.whl`."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

mapped = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-dir"]
folders = {"benchbox": "benchbox"} | {folder: name.replace(".", "/") for name, folder in mapped.items()}
tracked = subprocess.run(["git", "ls-files", *folders], capture_output=True, text=True, check=True).stdout.split(
    "\n"
)
wanted = {
    f"{target}/{Path(file).relative_to(folder).as_posix()}"
    for file in filter(None, tracked)
    for folder, target in folders.items()
    if Path(file).is_relative_to(folder) and not file.endswith((".md", ".gitkeep"))
}
missing = sorted(wanted - set(zipfile.ZipFile(sys.argv[1]).namelist()))
sys.exit(f"the wheel lacks {', '.join(missing)}" if missing else 0)
