"""Keys that had another name in earlier versions. They are still read, in files, on the command line and in checkpoints."""

from typing import Any

from launcher.errors import LaunchError

OLD, NEW = "teachers", "teacher"
KEYS = {"teachers.combine": "teacher_mixing", "teachers.models": "teacher"}


def renamed_key(key: str) -> str:
    """The present name of a dotted key."""
    old = next((old for old in KEYS if f"{key}.".startswith(f"{old}.")), None)
    return key if old is None else KEYS[old] + key.removeprefix(old)


def rename(values: dict[str, Any]) -> list[str]:
    """Give the values of old keys their present keys, in place. Returns one line per key that the user should change.

    Raises LaunchError for an old and a present key that contradict each other.
    """
    old = values.pop(OLD, None)
    if old is None:  # also the null that earlier versions wrote into each config.yaml
        return []
    if values.get(NEW) is not None:
        raise LaunchError(f"{OLD}: expected either {NEW} or {OLD}, got both; keep {NEW}, which takes a list")
    if not isinstance(old, dict) or not old.keys() <= {"combine", "models"}:
        raise LaunchError(f"{OLD}: expected models and combine, got other settings; write {NEW}: [{{model: …}}, …] and teacher_mixing")
    values |= {KEYS[f"{OLD}.{name}"]: value for name, value in old.items()}
    return [f"{OLD}: is now {NEW}, which takes one teacher or a list, with teacher_mixing; it is read, please rename it"]
