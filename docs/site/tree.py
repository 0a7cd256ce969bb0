"""Hooks of mkdocs: copies the documents of the navigation, and the files that they link to, in the folders of the
repository, so that links between them hold in the site as they are. The site loads nothing from other servers."""

import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


# What the theme loads from another server, to search in pages that are opened as files.
SHIM = "https://unpkg.com/iframe-worker/shim"

# The page of a folder, in it.
FOLDER = "files.md"


def pages(nav):
    """The documents of the navigation."""
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from [value] if isinstance(value, str) else pages(value)


def without_code(text):
    """The text without its code, in which nothing is a link."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`", "", text)


def on_pre_build(config):
    """Called by mkdocs before it looks for files."""
    tree = Path(config["docs_dir"])
    shutil.rmtree(tree)
    for page in pages(config["nav"]):
        copy(ROOT / page, tree)
        for target in LINK.findall(without_code((ROOT / page).read_text(encoding="utf-8"))):
            path = (ROOT / page).parent / target
            # Other documents are in the navigation; links that lead nowhere are reported by mkdocs.
            if "://" not in target and path.suffix != ".md" and path.exists():
                copy(path.resolve(), tree)


def copy(path, tree):
    """Copies a file; for a folder, makes a page of its files."""
    to = tree / path.relative_to(ROOT)
    if path.is_file():
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, to)
        return
    page = f"# {path.relative_to(ROOT)}\n"
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        page += f"\n## {file.relative_to(path)}\n\n````text\n{file.read_text(encoding='utf-8')}````\n"
    to.mkdir(parents=True, exist_ok=True)
    (to / FOLDER).write_text(page, encoding="utf-8")


def on_page_markdown(markdown, page, config, files):
    """Links to folders lead to their pages."""

    def index(match):
        path = (ROOT / page.file.src_uri).parent / match[1]
        is_folder = "://" not in match[1] and path.is_dir()
        return f"]({match[1].rstrip('/')}/{FOLDER})" if is_folder else match[0]

    return LINK.sub(index, markdown)


def on_post_page(output, page, config):
    """The site has the theme's one foreign script itself."""
    return output.replace(SHIM, "../" * page.file.dest_uri.count("/") + "assets/iframe-worker.js")


def on_post_template(output_content, template_name, config):
    """The same for the page that a server sends when there is none."""
    return output_content.replace(SHIM, "/assets/iframe-worker.js")


def on_post_build(config):
    """Adds that script, which tools/site has installed."""
    shim = Path(config["docs_dir"]).parent / "node_modules/iframe-worker/shim/index.js"
    shutil.copyfile(shim, Path(config["site_dir"]) / "assets/iframe-worker.js")
