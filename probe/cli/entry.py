"""The command `layerprobe`: parse, hand over, and say what went wrong in one line.

Nothing heavy is imported before a command has been understood: `layerprobe --help` answers at once.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence

import tyro

from ...hooks.errors import LayerprobeError
from ..study.nearest import nearest
from ..study.option_models import Options
from . import commands

ABOUT = (
    "Where in a language model something is represented, layer by layer. "
    "Start with: layerprobe demo --out demo-report"
)
COLUMN = 22  # width of the names in --help
PAIRS = ("--where", "--chat-options", "--generate")  # take KEY=VALUE ...
MISTAKE = 2  # exit code for whatever the user can put right


def main(args: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    args = list(sys.argv[1:] if args is None else args)
    try:
        code = _main(args)
    except KeyboardInterrupt:
        _say("stopped; the same command goes on where it was")
        code = 130
    except BrokenPipeError:  # `layerprobe info x.h5 | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code)


def _main(args: list[str]) -> int:
    if args in (["--version"], ["-V"]):
        from ... import __version__

        print(f"layerprobe {__version__}")
        return 0
    command = _parse(args)
    if isinstance(command, int):
        return command
    from .do import run_command

    try:
        run_command(command)
    except LayerprobeError as error:
        _say(str(error))
        return MISTAKE
    except BrokenPipeError:
        raise
    except OSError as error:  # a disk that is full, a folder that may not be written
        from ..results.folder import explain

        _say(explain(error))
        return 1
    return 0


def help_page() -> str:
    """What `layerprobe --help` prints: the commands by the question that they answer."""
    width = min(shutil.get_terminal_size().columns, 100)
    lines = ["usage: layerprobe COMMAND ...", "       layerprobe COMMAND --help", ""]
    lines += textwrap.wrap(ABOUT, width)
    for title, about in commands.groups():
        lines += ["", title]
        for name, line in about.items():
            lines += textwrap.wrap(
                line, width, initial_indent=f"  {name:<{COLUMN}}", subsequent_indent=" " * (COLUMN + 2)
            )
    return "\n".join(lines)


def _parse(args: list[str]) -> Options | int:
    """The command, or the exit code after help or a mistake has been printed."""
    if args and args[0] in ("-h", "--help"):
        print(help_page())
        return 0
    try:
        mistake = misspelling(args)
    except LayerprobeError as error:
        mistake = str(error)
    if mistake:
        _say(mistake)
        return MISTAKE
    name = commands.called(args[0]) or args[0]
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            command: Options = tyro.cli(
                commands.model_of(name),
                prog=f"layerprobe {name}",
                args=spelled_out(args[1:]),
                config=(
                    tyro.conf.OmitArgPrefixes,
                    tyro.conf.FlagCreatePairsOff,
                    tyro.conf.DisallowNone,
                ),
            )
            return command
    except SystemExit as stop:
        if stop.code in (0, None):
            return 0
        _say(one_line(complaint.getvalue(), name))
        return MISTAKE


def misspelling(args: Sequence[str]) -> str | None:
    """A command or option that does not exist, with the nearest that does.

    >>> misspelling(["prob", "a.h5"])
    "no command 'prob'; did you mean 'probe'? see: layerprobe --help"
    >>> misspelling(["probe", "a.h5", "--lable", "y"])
    "probe has no option '--lable'; did you mean '--label'? see: layerprobe probe --help"
    >>> misspelling(["capture", "--tokens", "last", "all"])
    '--tokens takes one rule, not last all: a store has one; capture again with --tokens all to another --out'
    """
    if not args or args[0].startswith("-"):
        known = ", ".join(commands.names())
        return f"Expected one of the commands {known}; see: layerprobe --help"
    name = commands.called(args[0])
    if name is None:
        return f"no command {args[0]!r}; {_nearest(args[0], list(commands.names()))}see: layerprobe --help"
    model = commands.model_of(name)
    flags = ["--help", *(_flag(field, info.default) for field, info in model.model_fields.items())]
    for word in args[1:]:
        option = word.partition("=")[0].replace("_", "-")
        if option.startswith("--") and option not in flags:
            return f"{name} has no option {option!r}; {_nearest(option, flags)}see: layerprobe {name} --help"
    if name in ("capture", "plan") and (rules := _several_rules(args)):
        return rules
    return None if {"-h", "--help"} & set(args) else _missing(name, model, args[1:])


def _flag(field: str, default: object) -> str:
    """As it is typed: what is on by itself can be turned off."""
    return ("--no-" if default is True else "--") + field.replace("_", "-")


def _missing(name: str, command: type[Options], args: Sequence[str]) -> str | None:
    """Options that must be there and are not, and a store that was not named before them."""
    given = {word.partition("=")[0].replace("_", "-") for word in args}
    needed, first = [], None
    for field, info in command.model_fields.items():
        if not info.is_required():
            continue
        if field in ("store", "stores", "study", "folder"):
            first = field
        elif (flag := "--" + field.replace("_", "-")) not in given:
            needed.append(flag)
    if needed:
        return f"{name} needs {', '.join(needed)}; see: layerprobe {name} --help"
    if first == "store" and args and args[0].startswith("-") and name not in ("info", "verify"):
        return f"{name} takes its store first: layerprobe {name} FILE.h5 {args[0]} ..."
    return None


def _several_rules(args: Sequence[str]) -> str | None:
    """What to do with several token rules: every other option of that kind takes lists."""
    if "--tokens" not in args:
        return None
    start = list(args).index("--tokens") + 1
    rules = list(itertools.takewhile(lambda word: not word.startswith("-"), args[start:]))
    if len(rules) < 2:
        return None
    return (
        f"--tokens takes one rule, not {' '.join(rules)}: a store has one; capture again with "
        f"--tokens {rules[1]} to another --out"
    )


def spelled_out(args: Sequence[str]) -> list[str]:
    """`--where COL=VALUE`, and `--generate` and `--chat-options` alike, as the parser wants it: two words.

    >>> spelled_out(["probe", "a.h5", "--where", "condition=ambiguous", "split=test", "--out", "o"])
    ['probe', 'a.h5', '--where', 'condition', 'ambiguous', 'split', 'test', '--out', 'o']
    """
    words: list[str] = []
    within = False
    for word in args:
        option, _, pair = word.partition("=")
        if word.startswith("--"):
            within = option.replace("_", "-") in PAIRS
            if within and pair:
                words.append(option)
                word = pair
        words += word.split("=", 1) if within and not word.startswith("--") else [word]
    return words


def _nearest(word: str, known: Sequence[str]) -> str:
    near = nearest(word, known)
    return f"did you mean {near!r}? " if near else ""


def one_line(box: str, command: str = "") -> str:
    """tyro's framed complaint as one line that ends with the command to type next.

    >>> one_line("╭─ Missing subcommand ───╮\\n│ Expected one of {a, b}.   │\\n│ ───── │\\n"
    ...          "│ For full helptext, run layerprobe --help │\\n╰────╯")
    'Expected one of {a, b}; see: layerprobe --help'
    """
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    text = re.sub(r"^[╭╰].*$|[│─]", "", text, flags=re.MULTILINE)
    text = re.sub(r"\s+", " ", text).strip()
    text, _, pointer = text.partition("For full helptext, ")
    text = text.partition("Argument helptext:")[0]
    text = re.sub(r"For further information visit \S+|\[type=[^\]]*\]", "", text).strip()
    text = text.replace("Missing from layerprobe", "missing for layerprobe").replace("(required)", "").strip()
    pointer = re.sub(r"^(run|see):? ", "", pointer.strip()) or f"layerprobe {command} --help".replace(
        "  ", " "
    )
    text = re.sub(r"\s+", " ", text).strip(" .")
    return f"{text}; see: {pointer}"


def _say(message: str) -> None:
    # One line whatever the message holds, so that scripts can read it.
    print(f"layerprobe: {' '.join(message.split())}", file=sys.stderr)
