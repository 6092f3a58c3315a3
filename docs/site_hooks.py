"""What the site needs beyond the pages: README.md as its home page, and the sources that the pages link to.

README.md begins with what pstate is, how it is installed, an example, and a recording of it. The home page shows these
as one screen: the words and the install line on one side, the example on the other, and no list of pages beside them.

On GitHub, a link to a test leads to its file. The site has no repository beside it, so each file that a page links to
becomes a page of its own here, with a heading for each test; a link whose text is the name of a test leads to that.
"""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent

#: Where the documents outside docs/ are in the site.
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
}

#: The home page, of the parts of README.md.
HOME = """\
---
hide:
  - navigation
  - toc
---

<div class="hero" markdown="1">

<div class="hero-words" markdown="1">

{words}

[Tutorial: ten minutes](docs/tutorial.md){{ .md-button .md-button--primary }}
[Reference](docs/reference.md){{ .md-button }}

</div>

<div class="hero-example" markdown="1">

{example}

</div>

</div>

{rest}"""

PICTURE = re.compile(r'<img [^>]*src="(?P<file>[^":]+\.svg)"')
SIZE = re.compile(r'<svg [^>]*\bwidth="(?P<width>[\d.]+)(?P<unit>pt|px|)"')

LINK = re.compile(r"\[(?P<text>[^\[\]]*)\]\((?P<target>[^()#\s]+)(?P<anchor>#[^()\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here."""
    documents = {page: (ROOT / name).read_text(encoding="utf-8") for name, page in PAGES.items()}
    documents["index.md"] = home(documents["index.md"])
    for file in list(files.documentation_pages()):
        documents[file.src_uri] = file.content_string
    sources = {name for page, text in documents.items() for name in linked(page, text) if name not in PAGES}
    for page in PAGES.values():
        files.append(File.generated(config, page, content=documents[page]))
    for name in sorted(sources):
        files.append(File.generated(config, f"source/{name}.md", content=shown(name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links out of docs/ into links to the pages that are made here."""
    here = page.file.src_uri
    if here.startswith("source/"):
        return markdown

    def replaced(match: re.Match[str]) -> str:
        name = in_repository(here, match["target"])
        if name is None:
            return match[0]
        anchor = match["anchor"] or ""
        if is_in_site(name):
            target = name.removeprefix("docs/")
        elif name in PAGES:
            target = PAGES[name]
        else:
            target = f"source/{name}.md"
            test = match["text"].strip("`")
            anchor = f"#{test}" if test.startswith("test_") and test.isidentifier() else ""
        return f"[{match['text']}]({os.path.relpath(target, os.path.dirname(here) or '.')}{anchor})"

    return LINK.sub(replaced, markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Say how wide each picture was drawn: site.css shows none so small that its letters cannot be read."""
    here = os.path.dirname(page.file.src_uri)

    def with_width(match: re.Match[str]) -> str:
        found = SIZE.search((ROOT / "docs" / here / match["file"]).read_text(encoding="utf-8"))
        if found is None:
            raise ValueError(f"{page.file.src_uri}: {match['file']} does not say how wide it is")
        width = float(found["width"]) * (96 / 72 if found["unit"] == "pt" else 1)
        return f'{match[0]} style="--width: {width:g}px"'

    return PICTURE.sub(with_width, html)


def home(readme: str) -> str:
    """The home page: *readme* with its first section as a hero."""
    start, heading, rest = readme.partition("\n## ")
    title, _, opening = start.partition("\n")
    words, fence, example = opening.partition("\n```python\n")
    if not title.startswith("# ") or not fence or not heading:
        raise ValueError("README.md: begins with a title, a paragraph, the install line, and an example in Python")
    return HOME.format(words=f"{title}\n{words}", example=f"{fence}{example}", rest=f"{heading}{rest}")


def linked(page: str, text: str) -> set[str]:
    """The files outside docs/ that *page* links to."""
    names = {in_repository(page, match["target"]) for match in LINK.finditer(text)}
    return {name for name in names if name is not None and not is_in_site(name)}


def is_in_site(name: str) -> bool:
    return name.startswith("docs/") and not name.endswith(".py")


def in_repository(page: str, target: str) -> str | None:
    """The file that *target* on *page* means, as a path in the repository; None for an address or a folder."""
    if "://" in target:
        return None
    homes = {page: name for name, page in PAGES.items()}
    name = os.path.normpath(os.path.join(os.path.dirname(homes.get(page, f"docs/{page}")), target))
    return name if (ROOT / name).is_file() else None


def shown(name: str) -> str:
    """The page of the file *name*."""
    text = (ROOT / name).read_text(encoding="utf-8")
    language = "python" if name.endswith(".py") else "text"
    # Search is for the documents: every second line of a test would be found otherwise.
    page = f"---\nsearch:\n  exclude: true\n---\n\n# {name}\n"
    for heading, part in parts(text) if language == "python" else [("", text)]:
        page += f"\n## {heading}\n" if heading else ""
        page += f"\n``````{language}\n{part}``````\n" if part else ""
    return page


def parts(text: str) -> list[tuple[str, str]]:
    """*text* cut before each test function, with the name of the test; the first part has none."""
    lines = text.splitlines(keepends=True)
    starts = [(0, "")]
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            starts.append((first - 1, node.name))
    ends = [start for start, _ in starts[1:]] + [len(lines)]
    return [
        (name, "".join(lines[start:end]).strip("\n") + "\n") for (start, name), end in zip(starts, ends, strict=True)
    ]
