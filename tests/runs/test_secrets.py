"""Planted secrets: in the environment, in a URL of the configuration. None of them may be found again in anything a run leaves or shows."""

import base64
import os
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
import yaml

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
PASSWORD, TOKEN = "pAssw0rd9f3c2e1d", "tOken77ab12cd34ef"
IN_THE_ENVIRONMENT = {"WANDB_API_KEY": "a1" * 20, "HF_TOKEN": "hf_" + "Zq" * 17, "AWS_SECRET_ACCESS_KEY": "aWs" + "k9" * 18}
SECRETS = [PASSWORD, TOKEN, *IN_THE_ENVIRONMENT.values()]


class Guarded(SimpleHTTPRequestHandler):
    """Serves to those who know the password and the token alone."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        known = base64.b64encode(f"reader:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") == f"Basic {known}" and f"token={TOKEN}" in self.path:
            super().do_GET()
        else:
            self.send_error(401)


def planted(data: bytes) -> list[str]:
    """Secrets in some bytes, plain or in base64."""
    coded = {secret: base64.b64encode(f"reader:{secret}".encode()) for secret in SECRETS}
    return [secret for secret in SECRETS if secret.encode() in data or coded[secret] in data]


@pytest.mark.parametrize(("right", "typed"), [(True, False), (False, False), (True, True)])
def test_no_planted_secret_is_found_in_what_a_run_leaves_or_shows(school, fork_server, tmp_path, right, typed):
    """typed: the URL is given on the command line, which everyone on the host can see; then at least nothing else shows it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Guarded, directory=str(school.shards))) as http:
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        password = PASSWORD if right else f"wrong-{PASSWORD}"
        tiny = yaml.safe_load((ROOT / "configs" / "tiny.yaml").read_text())
        tiny["run"]["folder"] = str(tmp_path / "run")
        url = f"http://reader:{password}@127.0.0.1:{http.server_address[1]}/?token={TOKEN}"
        tiny["data"] |= {"shards": "typed" if typed else url, "cache_folder": str(tmp_path / "cache")}
        tiny["teacher"]["model"] = str(school.teacher)
        tiny["report"]["wandb"] = "offline"
        (tmp_path / "mine.yaml").write_text(yaml.safe_dump(tiny))
        with (tmp_path / "output").open("wb") as output:
            command = [sys.executable, str(ROOT / "launcher" / "run.py"), "--config", str(tmp_path / "mine.yaml"), "train.updates=4"]
            command += [f"data.shards={url}"] if typed else []
            environment = os.environ | IN_THE_ENVIRONMENT | {"PYTHONPATH": str(ROOT), "WANDB_MODE": "offline"}
            if right and not typed:  # the run whose own command line is looked at
                process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=tmp_path)
            else:
                process = fork_server.start(command[1:], environment, tmp_path / "output", tmp_path)
            shown: set[bytes] = set()
            while process.poll() is None:
                try:
                    family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
                    shown |= {Path(f"/proc/{member.pid}/cmdline").read_bytes() for member in family}
                except (psutil.Error, OSError):
                    pass
                time.sleep(0.1)
        http.shutdown()
    text = (tmp_path / "output").read_text()
    assert process.returncode == (0 if right else 2), text
    if not right:
        assert "HTTP Error 401" in text
        assert "http://***@127.0.0.1" in text
        assert "Traceback" not in text
    left = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != "mine.yaml"}
    assert not right or any(path.suffix == ".wandb" for path in left)
    found = {str(path.relative_to(tmp_path)): planted(data) for path, data in left.items() if planted(data)}
    assert found == {}
    assert typed or not any(planted(line) for line in shown)
    if right:
        modes = [path.lstat().st_mode for path in (tmp_path / "run").rglob("*") if not path.is_symlink()]
        assert not any(mode & 0o002 for mode in modes), "nothing is writable for everyone"
