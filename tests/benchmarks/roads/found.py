"""What is found by itself on road photos: the four measurements, kept in one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.roads.conditions import measure_named, named_table
from tests.benchmarks.roads.photos import RoadPhotos
from tests.benchmarks.roads.power import measure_power, power_table
from tests.benchmarks.roads.seldom import measure_seldom, seldom_table
from tests.benchmarks.roads.unnamed import measure_unnamed, unnamed_table

PARTS = {
    "named": (measure_named, named_table),
    "unnamed": (measure_unnamed, unnamed_table),
    "power": (measure_power, power_table),
    "seldom": (measure_seldom, seldom_table),
}


def write_found(
    photos: RoadPhotos, folder: Path, parts: Sequence[str], *, repeats: int
) -> list[Path]:
    """Measure some of the parts anew and write ``conditions.json`` and ``conditions.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "conditions.json", folder / "conditions.md"]
    entries = json.loads(written[0].read_text()) if written[0].exists() else {}
    entries |= {part: PARTS[part][0](photos, repeats=repeats) for part in parts}
    written[0].write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
    lines = [
        "# Conditions found by themselves, on road photos",
        "",
        "`python -m tests.benchmarks.roads conditions`: detectors after their warm-up, which saw "
        "few photos of night, rain or snow.",
    ]
    for part, (_, table) in PARTS.items():
        lines += table(entries.get(part, []))
    written[1].write_text("\n".join(lines) + "\n")
    return written
