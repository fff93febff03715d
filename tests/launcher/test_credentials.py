"""No password survives on its way to an eye or a file."""

import pytest

from launcher.redaction import redacted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:pa55@host/x?token=abc&part=1", "https://***@host/x?token=***&part=1"),
        ("s3://key:secret@bucket/a", "s3://***@bucket/a"),
        ("https://pa55@host/a", "https://***@host/a"),
        ("http://h/a?X-Amz-Signature=1f&X-Amz-Date=2", "http://h/a?X-Amz-Signature=***&X-Amz-Date=2"),
        ("http://h/a?b=1&api_KEY=x#there", "http://h/a?b=1&api_KEY=***#there"),
        ("run.py data.shards=ftp://u:p@h/a train.seed=3", "run.py data.shards=ftp://***@h/a train.seed=3"),
        ("http://h/a?sort=up", "http://h/a?sort=up"),
        ("runs/me@home/key=3", "runs/me@home/key=3"),
        ("", ""),
    ],
)
def test_credentials_inside_a_url_are_three_stars(text: str, shown: str):
    assert redacted(text) == shown


def test_everything_around_them_stays():
    values = {"a": [1, 2.5, None, True, "s3://k:s@b"], "b": {"c": ("ftp://u:p@h", "x")}}
    assert redacted(values) == {"a": [1, 2.5, None, True, "s3://***@b"], "b": {"c": ["ftp://***@h", "x"]}}
