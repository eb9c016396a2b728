"""The page around the reference: how it looks, its filter, and what it may load (nothing)."""

import hashlib
from base64 import b64encode
from typing import Final

_STYLE: Final = """
:root { color-scheme: light dark; --line: #d5d9e0; --soft: #f4f6f9; --quiet: #5a6472;
  --link: #0b57c4; --get: #1a7f37; --put: #9a6700; --post: #0b57c4; --patch: #6f42c1;
  --delete: #b42318; }
@media (prefers-color-scheme: dark) { :root { --line: #39414d; --soft: #1d232b; --quiet: #9aa5b4;
  --link: #78b0ff; --get: #56c271; --put: #e0a93b; --post: #78b0ff; --patch: #b794f4;
  --delete: #ff8b80; } }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; display: grid;
  grid-template-columns: 20rem minmax(0, 1fr); }
nav { position: sticky; top: 0; height: 100vh; overflow-y: auto; padding: 1rem;
  border-right: 1px solid var(--line); background: var(--soft); font-size: .875rem; }
nav h2 { font-size: .875rem; margin: 1rem 0 .25rem; }
nav ul { list-style: none; margin: 0; padding: 0; }
nav a { display: block; padding: .1rem 0; color: inherit; text-decoration: none; }
nav a:hover, nav a:focus { text-decoration: underline; }
nav input { width: 100%; padding: .4rem; font: inherit; }
main { padding: 1rem 2rem 4rem; max-width: 60rem; }
section { border-top: 1px solid var(--line); padding-top: .5rem; margin-top: 2rem; }
section:target > h3 { background: var(--soft); }
h3 { margin: .5rem 0; }
h4 { margin: 1rem 0 .25rem; }
a { color: var(--link); }
code, pre { font: .875rem/1.5 ui-monospace, monospace; }
pre { background: var(--soft); padding: .75rem; overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0;
  border-bottom: 1px solid var(--line); }
td:first-child { white-space: nowrap; }
td p { margin: 0; }
.path { overflow-wrap: anywhere; }
.quiet { color: var(--quiet); }
.method { font-weight: 700; }
.get { color: var(--get); } .put { color: var(--put); } .post { color: var(--post); }
.patch { color: var(--patch); } .delete { color: var(--delete); }
@media (max-width: 50rem) { body { display: block; }
  nav { position: static; height: auto; border-right: 0; } main { padding: 1rem; } }
"""

# Shows what holds all the words that were typed. Without scripts the page is only longer.
_SCRIPT: Final = """
const field = document.querySelector("nav input");
field.hidden = false;
field.addEventListener("input", () => {
  const words = field.value.toLowerCase().split(/\\s+/);
  for (const section of document.querySelectorAll("section[id]")) {
    const text = section.textContent.toLowerCase();
    const hidden = !words.every((word) => text.includes(word));
    section.hidden = hidden;
    const link = document.querySelector(`nav a[href="#${CSS.escape(section.id)}"]`);
    if (link) link.hidden = hidden;
  }
});
"""


def _source(text: str) -> str:
    return "'sha256-" + b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


SECURITY_POLICY: Final = (
    f"default-src 'none'; style-src {_source(_STYLE)}; script-src {_source(_SCRIPT)};"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The header Content-Security-Policy: this style, this script, and nothing else from anywhere."""


def page(title: str, navigation: str, content: str) -> str:
    """A whole page; the arguments are HTML."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<nav>\n{navigation}</nav>\n<main>\n{content}</main>\n"
        f"<script>{_SCRIPT}</script>\n</body>\n</html>\n"
    )
