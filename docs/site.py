"""What MkDocs asks while it builds the site: pages made from the code, and links out of docs/."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import hardmine
from hardmine.cli.main import COMMANDS, actions_of, make_parser
from hardmine.config import Config

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "tests" / "benchmarks" / "results"
NOTEBOOK = ROOT / "examples" / "notebook.ipynb"
# Settings whose meaning stands with the function that they are arguments of.
FUNCTIONS = {
    "images": "load_images",
    "encoder": "load_encoder",
    "index": "build_index",
    "validation": "load_images",
    "sampler": "HardMiningSampler",
    "miner": "HardMiner",
}
WRITTEN = {
    "source": "The data set: a folder, or its file of labels.",
    "path": "Folder of the index.",
    "index": "Folder of their index.",
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add to the navigation the pages that are not named there: of docs/hosts, results, others."""
    more = {
        "Trainers": sorted(f"hosts/{path.name}" for path in (ROOT / "docs" / "hosts").glob("*.md")),
        "Measured": sorted(f"results/{path.name}" for path in RESULTS.glob("*.md")),
    }
    for entry in config.nav or []:
        for section, pages in more.items():
            if isinstance(entry, dict) and section in entry:
                entry[section] += pages
    named = re.findall(r"[\w/-]+\.md", str(config.nav))
    others = sorted({path.name for path in (ROOT / "docs").glob("*.md")} - {*named})
    if others:
        config.nav = [*(config.nav or []), {"More": others}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages made from README, the parser, the records, the notebook and the results."""
    pages = {
        "index.md": (ROOT / "README.md").read_text(encoding="utf-8").replace("](docs/", "]("),
        "command-line.md": command_line_page(),
        "settings.md": settings_page(),
    }
    for path in (*RESULTS.glob("*.md"), *RESULTS.glob("*.svg")):
        pages[f"results/{path.name}"] = path.read_text(encoding="utf-8")
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    page, pictures = notebook_page(json.loads(NOTEBOOK.read_text(encoding="utf-8")))
    files.append(File.generated(config, "notebook.md", content=page))
    for name, picture in pictures.items():
        files.append(File.generated(config, name, content=picture))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Show a link to a file outside docs/ as its path, since the site does not hold that file."""
    markdown = markdown.replace("](../tests/benchmarks/results/", "](results/")

    def name(match: re.Match[str]) -> str:
        text, link = match[1], match[2]
        target = re.sub(r"^(\.\./)+", "", link)
        outside = link.startswith("../") or page.file.src_uri == "index.md"
        if not outside or not (ROOT / target).exists():
            return match[0]
        return f"`{target}`" if text == target else f"{text} (`{target}`)"

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^):#]+)\)", name, markdown)


def command_line_page() -> str:
    """Every command's help."""
    _, commands = make_parser()
    parts = ["# Command line\n\nData on stdout, messages on stderr. Exit status: 0 success, 1 a"]
    parts[0] += " negative result (nothing found, something broken), 2 a mistake in what was given."
    for name, purpose in COMMANDS.items():
        parts.append(f"## hardmine {name}\n\n{purpose[0].upper()}{purpose[1:]}.")
        actions = actions_of(commands[name])
        for label, parser in actions.items() or [("", commands[name])]:
            if label:
                parts.append(f"### hardmine {name} {label}")
            parts.append(f"```text\n{parser.format_help().strip()}\n```")
    return "\n\n".join(parts) + "\n"


def notebook_page(notebook: dict[str, Any]) -> tuple[str, dict[str, bytes]]:
    """The cells of a notebook and what they gave, as Markdown, and its pictures by file name."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(f"```python\n{source}\n```" if cell["cell_type"] == "code" else source)
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/jpeg" in data:
                name = f"images/notebook-{len(pictures) + 1}.jpg"
                pictures[name] = base64.b64decode(data["image/jpeg"])
                parts.append(f"![What this cell shows]({name})")
            else:
                text = "".join(output.get("text") or data["text/plain"])
                parts.append(f"```text\n{text.rstrip()}\n```")
    download = f"\nThe notebook: [{NOTEBOOK.relative_to(ROOT)}](../{NOTEBOOK.relative_to(ROOT)})."
    return "\n\n".join([*parts, download]) + "\n", pictures


def settings_page() -> str:
    """Every setting, its default and its meaning, one table a section of the YAML file."""
    parts = [
        "# Settings\n\nThe same names in YAML (`hardmine.load_config`), as arguments in Python, "
        "and in the options of a trainer's hook. A whole file: [configs/hardmine.yaml]"
        "(../configs/hardmine.yaml)."
    ]
    for section in fields(Config):
        assert callable(section.default_factory)
        record = type(section.default_factory())
        meanings = described(record.__doc__ or "")
        if section.name in FUNCTIONS:
            function: Any = getattr(hardmine, FUNCTIONS[section.name])
            meanings |= described(function.__doc__ or "")
        meanings |= WRITTEN
        parts.append(f"## {section.name}\n\n{(record.__doc__ or '').partition(chr(10))[0]}\n")
        rows = [
            f"| `{field.name}` | `{default(field)}` | {meanings[field.name]} |"
            for field in fields(record)
        ]
        parts.append("\n".join(["| setting | default | meaning |", "|---|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def default(field: Field[Any]) -> str:
    """A setting's default, as YAML would show it."""
    value = None if field.default is MISSING else field.default
    return json.dumps(list(value) if isinstance(value, tuple) else value).strip('"')


def described(docstring: str) -> dict[str, str]:
    """Name and meaning of each entry of a docstring's Args and Attributes."""
    found: dict[str, str] = {}
    for block in re.findall(
        r"^ *(?:Args|Attributes):\n(.*?)(?=^ *[A-Z]\w+:\n|\Z)", docstring, re.M | re.S
    ):
        indent = len(block) - len(block.lstrip())
        for entry in re.split(rf"^ {{{indent}}}(?=\w)", block, flags=re.M):
            name, _, text = entry.partition(":")
            text = " ".join(re.sub(r"\n\s*- ", "<br>", text).split())
            text = re.sub(r"``([^`]*)``", r"`\1`", text)
            if name.strip():
                found[name.strip()] = text.replace("|", "\\|")
    return found
