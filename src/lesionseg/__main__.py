"""The command `lesionseg`, and `python -m lesionseg`: what a person runs besides the pipeline."""

import argparse
import errno
import re
import signal
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import requires, version

from lesionseg.common.errors import InputError
from lesionseg.common.text import printable

# name -> (module, its line in `lesionseg --help`). A module has `add_arguments(parser)` and `run(options)`, which
# raises InputError for what the user can mend. It is imported only if its command is given; NumPy, torch and the like
# are imported in `run`, so that help is quick.
COMMANDS = {
    "predict": ("lesionseg.predict.options", "segment the lesion in photographs of your own"),
    "export": ("lesionseg.export.command", "write a model as an ONNX file, from photograph to mask"),
    "demo": ("lesionseg.demo.command", "open a page on this machine to drop photographs on"),
    "compare": ("lesionseg.compare.options", "tell whether one run is better than another, image by image"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0, or 1 with the problems on stderr, or 130 on Ctrl-C and SIGTERM, which `kill` and schedulers
    send: both leave whole files."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if threading.current_thread() is threading.main_thread():  # elsewhere Python takes no signals
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        options = _parse(words)
        import_module(COMMANDS[options.command][0]).run(options)
        return 0
    except InputError as error:
        problems = error.problems
    except ModuleNotFoundError as error:
        problems = [f"{error}; {_extra_of(error.name)}"]
    except OSError as error:  # no permission, no space, a file where a directory should be
        advice = "free some space" if error.errno == errno.ENOSPC else "name another place"
        problems = [f"{printable(str(error.filename or '.'))}: {error.strerror}; {advice}"]
    except KeyboardInterrupt:
        print(f"{words[0]}: interrupted; every file written so far is whole", file=sys.stderr)
        return 130
    for problem in problems:
        print(f"{words[0]}: error: {problem}", file=sys.stderr)
    return 1


def _parse(words: Sequence[str]) -> argparse.Namespace:
    """The options of the command that the first word names."""
    parser = argparse.ArgumentParser(prog="lesionseg", description="Segment skin lesions in dermoscopic photographs.")
    parser.add_argument("--version", action="version", version=f"lesionseg {version('lesionseg')}")
    parsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name, (module, said) in COMMANDS.items():
        command = parsers.add_parser(name, help=said)
        if words[:1] == [name]:
            import_module(module).add_arguments(command)
    return parser.parse_args(words)


def _extra_of(module: str | None) -> str:
    """How to install a package that only some commands need."""
    for requirement in requires("lesionseg") or ():
        package = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra == ['\"]([\w-]+)", requirement)
        if package and extra and package.group() == (module or "").partition(".")[0]:
            return f"install it with: pip install 'lesionseg[{extra.group(1)}]'"
    return "reinstall lesionseg"


if __name__ == "__main__":
    sys.exit(main())
