"""The command behind a figure, as a README names it: without the folders of this machine."""

import argparse
import shlex
from typing import Any

from kd.export.model_card import public_name
from launcher.commands.parser import parser

PRIVATE = ("out", "push_to_hub", "private", "dry_run", "licence", "language", "base_model", "force")
"""Options that change no figure."""


def command_of(arguments: argparse.Namespace) -> str:
    """The command line of a verb's arguments, with options that are not the defaults. A path is its last part."""
    verbs: Any = next(action for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    words = ["stillhouse", arguments.verb]
    for action in verbs.choices[arguments.verb]._actions:
        value = getattr(arguments, action.dest, action.default)
        if action.dest in PRIVATE or value == action.default or action.dest == "help":
            continue
        values = [_public(str(one)) for one in (value if isinstance(value, list) else [value])]
        if not action.option_strings:
            words += values
        elif action.nargs == 0:
            words.append(action.option_strings[0])
        elif isinstance(action, argparse._AppendAction):
            words += [word for one in values for word in (action.option_strings[0], one)]
        else:
            words += [action.option_strings[0], *values]
    return shlex.join(words)


def _public(word: str) -> str:
    """A word whose path, also that of key=path, is its last part."""
    key, equals, value = word.rpartition("=")
    return f"{key}{equals}{public_name(value)}" if value else word
