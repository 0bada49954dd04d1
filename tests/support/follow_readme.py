"""Follow the README with an installed hardmine, in an empty folder.

python follow_readme.py README.md
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import hardmine


def main() -> None:
    place = Path(hardmine.__file__)
    assert place.is_relative_to(sys.prefix), f"{place} is not the installed hardmine"
    assert not any(Path.cwd().iterdir()), f"{Path.cwd()} is not empty"
    readme = Path(sys.argv[1]).read_text(encoding="utf-8")
    [code] = [
        block
        for block in re.findall(r"```python\n(.*?)```", readme, re.S)
        if "write_scenes" in block
    ]
    Path("quick_start.py").write_text(code, encoding="utf-8")
    subprocess.run([sys.executable, "quick_start.py"], check=True)
    command = Path(sys.executable).with_name("hardmine")
    for arguments in (["--version"], ["search", "scenes.hmx", "a cat", "-k", "3"]):
        subprocess.run([command, *arguments], check=True)


if __name__ == "__main__":
    main()
