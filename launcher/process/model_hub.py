"""The model hub, tried before a library that would try it for a minute. Imports the standard library only."""

import os
import socket
import threading
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from launcher.errors import LaunchError

HUB = "https://huggingface.co"
ANSWER_SECONDS = 1.0


def require_model(setting: str, name: str) -> None:
    """Return if a model is a folder, is in the hub's cache, or its hub answers. Raises LaunchError otherwise.

    With a cached model and no hub, HF_HUB_OFFLINE is set for this process: the libraries then read the cache at once.
    """
    if Path(name).expanduser().exists() or name.startswith((".", "/", "~")):
        return
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    hub = os.environ.get("HF_ENDPOINT") or HUB
    if offline:
        cause, advice = "HF_HUB_OFFLINE is set", "unset it"
    else:
        cause, advice = unreachable(hub), "check the network"
        if not cause:
            return
    if _is_cached(name):
        os.environ["HF_HUB_OFFLINE"] = "1"
        return
    raise LaunchError(
        f"{setting}: expected a folder, or a name in the hub's cache, got {name}, which is neither ({cause}); "
        f"name a folder, {advice}, or run `hf download {name}` where the hub answers"
    )


def unreachable(url: str) -> str:
    """The reason why the host of a URL, or the proxy in front of it, cannot be reached; empty if it can."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and parts.hostname and not urllib.request.proxy_bypass(parts.hostname):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    failure: list[str] = ["no answer"]

    def connect() -> None:
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname or "", port), ANSWER_SECONDS).close()
            failure[0] = ""
        except (OSError, ValueError) as error:
            failure[0] = getattr(error, "strerror", None) or str(error)

    attempt = threading.Thread(target=connect, daemon=True)  # looking up a name has no timeout of its own
    attempt.start()
    attempt.join(1.5 * ANSWER_SECONDS)
    return f"{parts.hostname}: {failure[0]}" if failure[0] else ""


def _is_cached(name: str) -> bool:
    """True if the hub's cache has a folder for a name."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or home / "hub")
    return (cache.expanduser() / f"models--{name.replace('/', '--')}" / "snapshots").is_dir()
