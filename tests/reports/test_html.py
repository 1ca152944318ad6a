from __future__ import annotations

import base64
import hashlib
import re

import pytest

from mmjax.reports.html import Markup, element, escape, join, page


def test_text_and_attributes_are_escaped_by_one_path():
    shown = element("p", "<b>&", title='"><script>')
    assert shown == '<p title="&quot;&gt;&lt;script&gt;">&lt;b&gt;&amp;</p>'
    assert isinstance(shown, Markup)


def test_markup_is_not_escaped_twice_and_none_is_left_out():
    inner = element("b", "1 < 2")
    assert element("p", inner, None, 3) == "<p><b>1 &lt; 2</b>3</p>"
    assert join([inner, "<", None]) == "<b>1 &lt; 2</b>&lt;"


def test_attribute_names_and_values():
    assert element("td", class_="x", aria_label="y", hidden=True, id=None) == (
        '<td class="x" aria-label="y" hidden></td>'
    )
    assert element("img", alt="") == '<img alt="">'


@pytest.mark.parametrize("tag, attributes", [("p onload=x", {}), ("p", {"on load": "x"}), ("", {})])
def test_names_that_are_not_words_are_refused(tag, attributes):
    with pytest.raises(ValueError, match="not an"):
        element(tag, **attributes)


def test_characters_that_html_cannot_hold_are_replaced():
    assert escape("a\ud800b\x00c\td") == "a?b\N{REPLACEMENT CHARACTER}c\td"
    escape("\udfff").encode("utf-8")


def test_string_operations_lose_the_promise_of_being_markup():
    """Text glued to markup is plain text again, so it is escaped where it is used."""
    assert join([element("b", "x") + "<script>"]) == "&lt;b&gt;x&lt;/b&gt;&lt;script&gt;"


def test_page_allows_its_own_style_and_nothing_else():
    style = "p { color: red; }"
    text = page("<title>", style, element("p", "x"))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1].replace("&#x27;", "'")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:;")
    assert "<title>&lt;title&gt;</title>" in text and f"<style>{style}</style>" in text
