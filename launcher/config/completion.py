"""`stillhouse completion SHELL`: what a shell needs to complete verbs, options, their values, packaged configurations and settings.

The script of a shell asks this verb for the candidates. Where there is none, the shell completes file names.
"""

import argparse
import types
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from launcher.commands.parser import parser
from launcher.config.presets import FOLDERS
from launcher.config.run_config import RunConfig
from launcher.config.yaml_file import PACKAGED

BASH = """\
_stillhouse() {
    local IFS=$'\\n'
    local words=("${COMP_WORDS[@]:1:COMP_CWORD}")
    COMPREPLY=($("${COMP_WORDS[0]}" completion bash --words "${words[@]/#/=}" 2>/dev/null))
    if [[ ${#COMPREPLY[@]} -gt 0 && ${COMPREPLY[0]} == *= ]]; then compopt -o nospace; fi
}
complete -o default -F _stillhouse stillhouse
"""
ZSH = """\
#compdef stillhouse
_stillhouse() {
    local -a found
    found=(${(f)"$("${words[1]}" completion zsh --words "${(@)words[2,CURRENT]/#/=}" 2>/dev/null)"})
    if (( ! ${#found} )); then _files; return; fi
    compadd -S '' -- ${(M)found:#*=}
    compadd -- ${found:#*=}
}
(( ${+functions[compdef]} )) || { autoload -Uz compinit && compinit }
compdef _stillhouse stillhouse
"""
FISH = """\
function __stillhouse_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l command $words[1]
    set -e words[1]
    set -l found ($command completion fish --words "="$words "=$current" 2>/dev/null)
    if test (count $found) -gt 0
        printf '%s\\n' $found
    else
        __fish_complete_path $current
    end
end
complete -c stillhouse -f -a '(__stillhouse_complete)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def run(arguments: argparse.Namespace) -> int:
    """Print the script of a shell, or the candidates for the words that its script asks about."""
    if arguments.words is None:
        print(SCRIPTS[arguments.shell], end="")
    else:
        print("".join(f"{candidate}\n" for candidate in candidates([word.removeprefix("=") for word in arguments.words])), end="")
    return 0


def candidates(words: list[str]) -> list[str]:
    """The completions of the last word. words: those after `stillhouse`. Empty where a file name, or anything, may stand."""
    *before, last = words or [""]
    at = parser()
    option: argparse.Action | None = None
    verb: list[str] = []
    for word in before:
        if option is not None:  # this word is its value
            option = None
        elif word.startswith("-"):
            option = _with_value(at, word)
        elif word in (verbs := _verbs(at)):
            at, verb = verbs[word], [*verb, word]
    if option is not None:
        found: list[str] = list(map(str, option.choices or ())) or _names_for(option.option_strings[-1], verb)
    elif last.startswith("-"):
        options = [name for action in at._actions if action.help != argparse.SUPPRESS for name in action.option_strings]
        found = [name for name in options if name.startswith("--")]
    elif _verbs(at):
        found = list(_verbs(at))
    else:
        found = _for_positional(at, verb, last)
    return sorted({name for name in found if name.startswith(last)})


def settings() -> list[str]:
    """The settings of a run as `train.updates=`, for the command line."""
    return [f"{name}=" for name in _names(RunConfig, "")]


def _with_value(at: argparse.ArgumentParser, word: str) -> argparse.Action | None:
    """The option that a word names, if a value follows it."""
    return next((action for action in at._actions if word in action.option_strings and action.nargs != 0), None)


def _verbs(at: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The verbs below a parser, by name."""
    return next((dict(action.choices) for action in at._actions if isinstance(action, argparse._SubParsersAction)), {})


def _names_for(option: str, verb: list[str]) -> list[str]:
    """Packaged names for an option's value."""
    return _presets(FOLDERS.get(f"{verb[0]} {option}", ".")) if option in ("--config", "--scale") and verb else []


def _for_positional(at: argparse.ArgumentParser, verb: list[str], last: str) -> list[str]:
    """Candidates for an argument that is no option."""
    values = [action for action in at._actions if not action.option_strings]
    if any(action.choices for action in values):
        return [str(choice) for action in values for choice in action.choices or ()]
    if verb == ["config", "show"]:
        return [name for folder in FOLDERS.values() for name in _presets(folder)]
    shown = " ".join(str(action.metavar) for action in values)
    found = _presets(FOLDERS[verb[0]]) if "FILE" in shown and verb[0] in FOLDERS else []
    return found + (settings() if "key=value" in shown and last not in ("", "=") else [])


def _presets(folder: str) -> list[str]:
    return [file.stem for file in (PACKAGED / folder).glob("*.yaml")]


def _names(model: type[BaseModel], prefix: str) -> Iterator[str]:
    """The dotted names of a model's settings, nested models opened."""
    for name, field in model.model_fields.items():
        nested = next(_models(field.annotation), None)
        if nested is not None:
            yield from _names(nested, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The models that a field may hold itself, so not those in a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        for inner in typing.get_args(annotation):
            yield from _models(inner)
