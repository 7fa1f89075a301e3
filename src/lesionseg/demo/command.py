"""`lesionseg demo`: its options, shown without loading torch."""

import argparse
import webbrowser
from pathlib import Path

from lesionseg.common.errors import InputError

MODEL, PORT = "models/lesion-segmentation", 8321
DESCRIPTION = """\
Open a page in the browser to drop photographs on: it shows outline, probability and numbers, with a threshold to move.
It listens on this machine only (127.0.0.1); photographs never leave it. Ctrl-C ends it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    parser.add_argument("--model", type=Path, default=Path(MODEL), help=f"a model's folder or file; default: {MODEL}")
    parser.add_argument("--port", type=int, default=PORT, help=f"0: any free one; default: {PORT}")
    parser.add_argument("--device", default="auto", help="auto | cpu | cuda | cuda:<index>")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")


def run(options: argparse.Namespace) -> None:
    """Serve until Ctrl-C. Raises InputError if there is no such model or the port is taken."""
    if not 0 <= options.port < 65536:
        raise InputError(f"--port: found {options.port}, expected 0 to 65535")
    from lesionseg.demo.server import Server
    from lesionseg.predict.model import load

    model = load(options.model, options.device)
    try:
        server = Server(model, options.port)
    except OSError as error:
        raise InputError(f"--port: {options.port}: {error.strerror}; name another port, or 0 for any") from None
    with server:
        print(f"{server.address}  (Ctrl-C ends it)", flush=True)
        if not options.no_browser:
            webbrowser.open(server.address)
        server.serve_forever()
