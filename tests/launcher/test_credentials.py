"""No password is printed or stored: in launcher/redaction.py, and in its twin for the job scripts."""

import subprocess
from pathlib import Path

import pytest

from launcher.redaction import redacted

ROOT = Path(__file__).resolve().parents[2]
SHOWN = [
    ("https://me:pa55@host/x?token=abc&part=1", "https://***@host/x?token=***&part=1"),
    ("s3://key:secret@bucket/a", "s3://***@bucket/a"),
    ("https://pa55@host/a", "https://***@host/a"),
    ("http://h/a?X-Amz-Signature=1f&X-Amz-Date=2", "http://h/a?X-Amz-Signature=***&X-Amz-Date=2"),
    ("http://h/a?b=1&api_KEY=x#there", "http://h/a?b=***&api_KEY=***#there"),
    ("run.py data.shards=ftp://u:p@h/a train.seed=3", "run.py data.shards=ftp://***@h/a train.seed=3"),
    ("http://h/a?sort=up", "http://h/a?sort=up"),
    ("runs/me@home/key=3", "runs/me@home/key=3"),
    ("", ""),
    ("https://h/c?sv=2022-11-02&sr=c&sig=a%2Fb%3D", "https://h/c?sv=2022-11-02&sr=c&sig=***"),
    *((f"http://h/a?{name}=s3cr3t", f"http://h/a?{name}=***") for name in ("pw", "passwd", "auth", "jwt", "sas", "code", "anything")),
    ("http://h/a;token=s3cr3t/b", "http://h/a;token=***/b"),
    ("http://h/a?page=1;token=s3/cr3t", "http://h/a?page=1;token=***"),
    ("http://h/a#token=s3cr3t&part=2", "http://h/a#token=***&part=2"),
    ("http://h/a?page=1?token=s3cr3t", "http://h/a?page=1?token=***"),
    ("http://h/a?s3cr3t", "http://h/a?***"),
    ("http://h/a?page=1&s3cr3t&t0p", "http://h/a?page=1&***&***"),
    ("http://h/a#eyJhbGciOi.JIUzI1NiJ9", "http://h/a#***"),
    ("https://me:pa/ss@host/x", "https://***@host/x"),
    ("https://me:p@ss@host/x", "https://***@host/x"),
    ("https://me:12/34@host/x", "https://***@host/x"),
    ("https://me:p/a?s@host/x", "https://***@host/x"),
    ("http://h:80/a?mail=me@x", "http://h:80/a?mail=***"),
    ("http://[::1]:80/a@b", "http://[::1]:80/a@b"),
    ("https://h/packages/name@1.0/x", "https://h/packages/name@1.0/x"),
    ("http://h/a?token=abc: expected a file", "http://h/a?token=***: expected a file"),
    ("http://h/a;token=abc: expected a file", "http://h/a;token=***: expected a file"),
    ("http://h/a?abc: expected a file", "http://h/a?***: expected a file"),
    ("http://h/a: expected a file", "http://h/a: expected a file"),
    ("see (http://h/a?token=abc), then 'http://h/b?sig=1'.", "see (http://h/a?token=***), then 'http://h/b?sig=***'."),
    ("http://a/?k=1 http://me:pw@b/?k=2#x=3", "http://a/?k=*** http://***@b/?k=***#x=***"),
    ("Max retries exceeded with url: /c?sig=abc (Caused by x)", "Max retries exceeded with url: /c?sig=*** (Caused by x)"),
    ("is it the right file? a=b & c=d", "is it the right file? a=b & c=d"),
]


@pytest.mark.parametrize(("text", "shown"), SHOWN)
def test_credentials_inside_a_url_are_three_stars(text: str, shown: str):
    assert redacted(text) == shown
    assert redacted(shown) == shown


def test_the_job_scripts_hide_the_same():
    given = "".join(f"{text}\n" for text, _ in SHOWN)
    command = ["bash", "-c", f"name=test root={ROOT}; source {ROOT}/slurm/common.sh; hide", "test", "argument"]
    told = subprocess.run(command, input=given, capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == [shown for _, shown in SHOWN]


def test_everything_around_them_stays():
    values = {"a": [1, 2.5, None, True, "s3://k:s@b"], "b": {"c": ("ftp://u:p@h", "x")}}
    assert redacted(values) == {"a": [1, 2.5, None, True, "s3://***@b"], "b": {"c": ["ftp://***@h", "x"]}}
