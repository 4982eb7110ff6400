"""Origins: taken in the form that browsers send, or refused with a sentence."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.origins import Origins, normalised


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("https://a.example", "https://a.example"),
        ("  https://a.example/ ", "https://a.example"),
        ("HTTPS://A.Example:443", "https://a.example"),
        ("http://a.example:80/", "http://a.example"),
        ("http://a.example:443", "http://a.example:443"),
        ("https://a.example:08443", "https://a.example:8443"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("https://BÜCHER.example:443/", "https://xn--bcher-kva.example"),
        ("https://bu\u0308cher.example", "https://xn--bcher-kva.example"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("https://straße.example", "https://xn--strae-oqa.example"),
        ("https://例え。テスト", "https://xn--r8jz45g.xn--zckzah"),
        ("http://localhost", "http://localhost"),
        ("http://localhost:5173", "http://localhost:5173"),
        ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
        ("http://[0:0::1]:3000", "http://[::1]:3000"),
        ("capacitor://localhost", "capacitor://localhost"),
        ("ionic://localhost/", "ionic://localhost"),
        ("tauri://localhost", "tauri://localhost"),
        ("https://tauri.localhost", "https://tauri.localhost"),
        ("app://obsidian.md", "app://obsidian.md"),
        ("app://.", "app://."),
        ("chrome-extension://abcdefgh", "chrome-extension://abcdefgh"),
        ("file://", "file://"),
        ("https://a.example,https://A.example:443 , capacitor://localhost,", "https://a.example,capacitor://localhost"),
    ],
)
def test_an_origin_is_kept_as_browsers_send_it(written: str, sent: str) -> None:
    assert normalised(written) == sent
    for origin in sent.split(","):
        assert Origins(normalised(written)).names(origin)


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("*", "wildcard"),
        ("https://*.example.com", "wildcard"),
        ("https://a.example:*", "wildcard"),
        ("null", "null"),
        ("a.example", "https://example.com"),
        ("//a.example", "https://example.com"),
        ("https:a.example", "https://example.com"),
        ("https://a.example/page", "https://example.com"),
        ("https://a.example?x", "https://example.com"),
        ("https://anna:hush@a.example", "https://example.com"),
        ("https://a.example b.example", "https://example.com"),
        ("https://a.example:", "https://example.com"),
        ("https://a.example:٣", "https://example.com"),
        ("https://a.example:0", "port"),
        ("https://a.example:65536", "port"),
        ("https://a..example", "host"),
        ("https://-a.example", "host"),
        ("https://127.1", "host"),
        ("https://0x7f000001", "host"),
        ("https://[::x]", "https://example.com"),
        ("https://[::1::]", "host"),
        ("https://a\u200b\u2028.example", "host"),
        ("capacitor://bücher", "host"),
        ("wss://a.example", "scheme"),
        ("file:///home/anna/page.html", "https://example.com"),
        ("https://a.example,https://b.example/hush", "origin 2 "),
    ],
)
def test_what_no_browser_sends_is_refused_without_being_told(written: str, says: str) -> None:
    with pytest.raises(ValueError, match=r"^origin ") as caught:
        normalised(written)
    assert says in str(caught.value) and "hush" not in str(caught.value)


@given(st.text() | st.from_regex(r"[a-z]{1,5}://[^,]{0,20}(:\d{1,6})?/?"))
def test_whatever_is_written_is_taken_in_a_form_that_stays_or_refused(text: str) -> None:
    try:
        once = normalised(text)
    except ValueError as error:
        assert str(error).startswith("origin ")
    else:
        assert normalised(once) == once
        assert once.isascii() and once == once.lower()
