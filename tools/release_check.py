"""Checks that a release is what it says, and works where it is installed.

The version, the changelog and, if there is one, the tag have to agree. The sdist and the wheel are built into ``dist/``
and each is installed in a new environment of every Python on the machine; there, the demo's apps run from a folder
outside the repository.

``make release-check``, or ``python tools/release_check.py [--tag v0.1.0] [--only-version]``. It needs only Python.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
NEEDS_EXTRA = "pip install 'steporal[cli]'"


def main() -> None:
    """Run the checks; the exit status says whether all hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tag", help="the tag that is released, such as v0.1.0")
    parser.add_argument("--only-version", action="store_true", help="build nothing")
    options = parser.parse_args()
    check_version(options.tag)
    if options.only_version:
        return
    for built in build():
        for python in pythons():
            check_installed(built, python)


def check_version(tag: str | None) -> None:
    """Compare the version, the changelog and the tag."""
    found = re.search(r'^__version__ = "(.+)"$', (ROOT / "adapter/steporal/__init__.py").read_text(), re.MULTILINE)
    if found is None:
        sys.exit("error: adapter/steporal/__init__.py has no __version__")
    version = found[1]
    if tag is not None and tag != f"v{version}":
        sys.exit(f"error: the tag is {tag!r} and the version {version!r}; tag v{version}, or change __version__")
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    expected = [version] if tag is not None else [version, "Unreleased"]
    if not headings or headings[0] not in expected:
        sys.exit(
            f"error: CHANGELOG.md begins with {headings[:1]}, and the version is {version!r}; add '## [{version}]'"
        )
    print(f"version {version}, in the changelog as [{headings[0]}]{f', tag {tag}' if tag else ''}")


def build() -> list[Path]:
    """Build the wheel and the sdist; their files."""
    shutil.rmtree(DIST, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        python = environment(Path(folder), sys.executable)
        run(python, "-m", "pip", "install", "--quiet", "build")
        run(python, "-m", "build", "--outdir", str(DIST), str(ROOT))
    built = sorted(DIST.iterdir())
    if [file.suffix for file in built] != [".whl", ".gz"]:
        sys.exit(f"error: dist/ has {[file.name for file in built]}, not a wheel and an sdist")
    return built


def pythons() -> list[str]:
    """The Pythons on the machine that are supported, one of each minor version: on the PATH, or pyenv's."""
    by_pyenv = Path.home() / ".pyenv" / "versions"
    found = []
    for version in PYTHONS:
        candidates = [shutil.which(f"python{version}"), *map(str, sorted(by_pyenv.glob(f"{version}.*/bin/python")))]
        found += [python for python in candidates if python and works(python)][:1]
    return found or [sys.executable]


def works(python: str) -> bool:
    """Return whether it is a Python, and not a shim for one that is not installed."""
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


def check_installed(built: Path, python: str) -> None:
    """Install what was built, first alone and then with the extra for development, and run the demo's apps."""
    with tempfile.TemporaryDirectory() as folder:
        outside = Path(folder)
        installed = environment(outside / "venv", python)
        run(installed, "-m", "pip", "install", "--quiet", str(built))
        run(
            installed, "-c", "import steporal; steporal.Client('shop'); steporal.encryption; steporal.lint", cwd=outside
        )
        command = installed.parent / "steporal"
        bare = subprocess.run([command, "--version"], capture_output=True, text=True, check=False, cwd=outside)
        if bare.returncode == 0 or NEEDS_EXTRA not in bare.stderr or "Traceback" in bare.stderr:
            sys.exit(f"error: without extras, steporal --version says: {bare.stdout}{bare.stderr}")
        run(installed, "-m", "pip", "install", "--quiet", f"{built}[dev]")
        said = subprocess.run([command, "--version"], capture_output=True, text=True, check=True, cwd=outside).stdout
        shutil.copytree(ROOT / "examples", outside / "examples")
        run(command, "lint", "examples.shop.app:client", cwd=outside)
        run(command, "demo", cwd=outside)
        print(f"{built.name}: {said.strip()}")


def environment(folder: Path, python: str) -> Path:
    """Make an environment; its Python."""
    if python == sys.executable:
        venv.create(folder, with_pip=True)
    else:
        run(Path(python), "-m", "venv", str(folder))
    return folder / "bin" / "python"


def run(program: Path, *arguments: str, cwd: Path | None = None) -> None:
    """Run a command; what it prints is shown where it fails."""
    done = subprocess.run([program, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(
            f"error: {program.name} {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )


if __name__ == "__main__":
    main()
