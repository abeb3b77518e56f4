"""Build the site of the documentation, or check its links to other sites.

python docs/site/build.py [--out build/site] [--linkcheck]
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import check
import stage

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Stage the pages, run Sphinx, and check what it wrote; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=stage.ROOT / "build" / "site")
    parser.add_argument("--linkcheck", action="store_true", help="needs the internet")
    options = parser.parse_args()
    out = options.out.resolve()
    builder = "linkcheck" if options.linkcheck else "html"
    folder = out if builder == "html" else out.with_name(f"{out.name}-linkcheck")
    source, cache = (out.with_name(f"{out.name}-{what}") for what in ("pages", "cache"))
    shutil.rmtree(folder, ignore_errors=True)
    stage.stage(source)
    words = ["-b", builder, "-c", HERE, "-d", cache, "-W", "--keep-going", "-q", source, folder]
    done = subprocess.run([sys.executable, "-m", "sphinx", *map(str, words)])
    if done.returncode or builder == "linkcheck":
        return done.returncode
    problems = check.problems(folder)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(folder / "index.html")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
