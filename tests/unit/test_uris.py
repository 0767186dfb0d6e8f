import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dedup_job.errors import ImageRejected, RejectReason
from dedup_job.io.uris import SCHEMES, fetch_key, local_path, redact, resolve, uri_key

LOCAL, S3, HTTP = "/shop/photos", "s3://shop/photos", "https://cdn.example/photos/"


@pytest.mark.parametrize(
    ("uri", "base", "expected"),
    [
        ("a.jpg", LOCAL, "file:///shop/photos/a.jpg"),
        ("./x//a b.jpg", LOCAL, "file:///shop/photos/x/a%20b.jpg"),
        ("50%25 off?#.jpg", LOCAL, "file:///shop/photos/50%2525%20off%3F%23.jpg"),
        ("../other/a.jpg", LOCAL, "file:///shop/other/a.jpg"),
        ("%2e%2e/a.jpg", LOCAL, "file:///shop/photos/%252e%252e/a.jpg"),
        ("./red:dress.jpg", LOCAL, "file:///shop/photos/red%3Adress.jpg"),
        ("/etc/passwd", LOCAL, "file:///etc/passwd"),
        ("//etc/passwd", S3, "file:///etc/passwd"),
        ("file:///a/%2e%2e/b.jpg", LOCAL, "file:///b.jpg"),
        ("file:/a/b%20c.jpg", LOCAL, "file:///a/b%20c.jpg"),
        ("FILE://localhost/a.jpg", LOCAL, "file:///a.jpg"),
        ("a b.jpg", S3, "s3://shop/photos/a b.jpg"),
        ("S3://Other/k/a.jpg", LOCAL, "s3://Other/k/a.jpg"),
        ("gs://other/a.jpg", S3, "gs://other/a.jpg"),
        ("x/a.jpg?v=1", HTTP, "https://cdn.example/photos/x/a.jpg?v=1"),
        (" HTTP://cdn.example/a.jpg ", LOCAL, "http://cdn.example/a.jpg"),
        ("http://[::1]:80/a.jpg", LOCAL, "http://[::1]:80/a.jpg"),
    ],
)
def test_resolves_to_one_absolute_form(uri, base, expected):
    assert resolve(uri, base) == expected


@pytest.mark.parametrize(
    ("uri", "base"),
    [
        ("simplecache::file:///etc/hostname", LOCAL),
        ("a::b.jpg", LOCAL),
        ("file:///a::b", LOCAL),
        ("s3://shop/a::file:///etc/passwd", LOCAL),
        ("local:///etc/passwd", LOCAL),
        ("ftp://h/a.jpg", LOCAL),
        ("data:image/png;base64,AAAA", LOCAL),
        ("C:\\photos\\a.jpg", LOCAL),
        ("red:dress.jpg", LOCAL),
        ("file://otherhost/a.jpg", LOCAL),
        ("file:a.jpg", LOCAL),
        ("file:///a%00.jpg", LOCAL),
        ("file:///a%ff.jpg", LOCAL),
        ("a\x00.jpg", LOCAL),
        ("a\n.jpg", LOCAL),
        ("a\ud800.jpg", LOCAL),
        ("http://good@evil/a.jpg", LOCAL),
        ("http://user:secret@host/a.jpg", LOCAL),
        ("http:a.jpg", LOCAL),
        ("http:///a.jpg", LOCAL),
        ("http://host:99999/a.jpg", LOCAL),
        ("http://host\\@evil/a.jpg", LOCAL),
        ("http://[::1/a.jpg", LOCAL),
        ("s3://", LOCAL),
        ("s3://bucket", LOCAL),
        ("s3://user:secret@bucket/a.jpg", LOCAL),
        ("s3://bucket/../other/a.jpg", LOCAL),
        ("gs://bucket/x/../../other/a.jpg", LOCAL),
        ("../a.jpg", S3),
        ("x/../../a.jpg", HTTP),
        ("a" * 10_000, LOCAL),
    ],
)
def test_refuses_in_one_line_that_names_a_setting(uri, base):
    with pytest.raises(ImageRejected) as caught:
        resolve(uri, base)
    assert caught.value.reason is RejectReason.URI_REFUSED
    assert "\n" not in caught.value.detail and len(caught.value.detail) < 300
    assert "secret" not in caught.value.detail
    if len(uri) < 1000 and uri.isprintable():
        assert any(name in caught.value.detail for name in ("fetch.allow_", "catalog.image_root"))


@given(st.text(max_size=60), st.sampled_from([LOCAL, S3, HTTP]))
def test_any_text_resolves_to_a_fixed_point_or_is_refused(uri, base):
    try:
        absolute = resolve(uri, base)
    except ImageRejected as rejected:
        assert rejected.reason is RejectReason.URI_REFUSED
        return
    assert absolute.split(":", 1)[0] in SCHEMES
    assert resolve(absolute, "/elsewhere") == absolute


@given(
    st.text(st.characters(exclude_characters="/\x00", exclude_categories=["Cc", "Cs"]), min_size=1)
)
def test_a_relative_name_means_itself(name):
    if ":" in name or name in (".", ".."):
        name = f"x{name.replace(':', '')}"
    assert local_path(resolve(name, LOCAL)) == f"/shop/photos/{name}"


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("images/a.jpg", "images/a.jpg"),
        ("https://h/a@2x.jpg", "https://h/a@2x.jpg"),
        ("https://h/a.jpg?X-Amz-Signature=SECRET#SECRET", "https://h/a.jpg"),
        ("https://u:SECRET@h:8080/a.jpg", "https://h:8080/a.jpg"),
        ("https://u:SEC@RET@h/a.jpg", "https://h/a.jpg"),
        ("https://u:1?SECRET@h/a.jpg", "https://[redacted]"),
        ("https://u:SECRET#@h/a.jpg", "https://[redacted]"),
        ("https://u:SECRET", "https://[redacted]"),
        ("simplecache::https://u:SECRET@h/a.jpg", "simplecache::https://h/a.jpg"),
        ("u:SECRET@h/a.jpg", "h/a.jpg"),
        ("a\nb\x1b[31m\ud800", "a\ufffdb\ufffd[31m\ufffd"),
        ("", ""),
    ],
)
def test_redacts(uri, shown):
    assert redact(uri) == shown


PRINTABLE = st.text(st.characters(exclude_characters="/@\\", min_codepoint=33), min_size=1)


@given(PRINTABLE, PRINTABLE, st.text(max_size=20))
def test_never_shows_a_password_or_a_signature(user, path, tail):
    uri = f"https://{user}:hunter2{user}@shop.example/{path}?sig=hunter2{tail}"
    assert "hunter2" not in redact(uri)


def test_a_long_uri_is_cut_after_its_password():
    shown = redact("https://u:" + "SECRET" * 1000 + "@h/" + "a" * 5000)
    assert "SECRET" not in shown
    assert len(shown) <= 1003
    for user in ("u:", "https://u:", "x/u:"):
        assert "SECRET" not in redact(user + "SECRET" * 100_000 + "@h/a.jpg")
    assert redact("https://h/" + "a/" * 100_000).startswith("https://h/a/a/")


def test_keys():
    assert uri_key("s3://b/k?sig=1") == uri_key("s3://b/k?sig=2")
    assert uri_key("s3://b/k") == hashlib.sha256(b"s3://b/k").hexdigest()
    assert fetch_key("https://h/p?id=1") != fetch_key("https://h/p?id=2")
