"""HTML and SVG from Python values, through one escaping path.

Everything in a page is made by `element`. A child or attribute that is not `Markup` is text, and
text is escaped; the only other way to obtain `Markup` is `join`. So a class name, a caption or a
config value can never become markup, whatever it holds. The page forbids scripts and every outside
resource besides, in case that reasoning has a hole.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable

_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")
_VOID = frozenset({"br", "hr", "img", "meta"})
# Control characters have no place in HTML text (tab and line feed do).
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class Markup(str):
    """Text that is already HTML. Made by `element` and `join` only."""


def escape(text: object) -> Markup:
    """`text` as HTML that shows exactly its characters, in element content and in attributes."""
    # A lone surrogate (JSON may hold one) cannot be encoded, so it becomes a question mark.
    shown = str(text).encode("utf-8", "replace").decode("utf-8")
    return Markup(html.escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", shown), quote=True))


def join(parts: Iterable[object]) -> Markup:
    """The parts one after another: markup as it is, anything else escaped, None left out."""
    return Markup("".join(p if isinstance(p, Markup) else escape(p) for p in parts if p is not None))


def element(tag: str, /, *children: object, **attributes: object) -> Markup:
    """One HTML or SVG element.

    Args:
      tag: its name.
      children: markup, or anything else, which is shown as text. None is left out.
      attributes: `class_` stands for `class`, and `_` inside a name for `-`. None and False leave
        the attribute out, True writes it without a value.

    Raises:
      ValueError: for a tag or attribute name that is not a plain word; such names come from code.
    """
    written = []
    for key, value in attributes.items():
        key = key.rstrip("_").replace("_", "-")
        if not _NAME.fullmatch(key):
            raise ValueError(f"not an attribute name: {key!r}")
        if value is True:
            written.append(f" {key}")
        elif value is not None and value is not False:
            written.append(f' {key}="{escape(value)}"')
    if not _NAME.fullmatch(tag):
        raise ValueError(f"not an element name: {tag!r}")
    start = f"<{tag}{''.join(written)}>"
    return Markup(start if tag in _VOID else f"{start}{join(children)}</{tag}>")


def page(title: str, style: str, *body: object) -> str:
    """A whole document whose only style sheet is `style` (trusted CSS) and that loads nothing.

    Its Content-Security-Policy allows this one style sheet, by its hash, and images that stand in
    the page as data; no script, no style attribute, no address.
    """
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", title),
        element("style", Markup(style)),
    )
    return "<!doctype html>\n" + element("html", head, element("body", *body), lang="en") + "\n"
