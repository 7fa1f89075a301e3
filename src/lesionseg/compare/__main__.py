"""`python -m lesionseg.compare A B`."""

import argparse
import sys

from lesionseg.common.errors import InputError
from lesionseg.compare import command


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m lesionseg.compare")
    command.add_arguments(parser)
    try:
        command.run(parser.parse_args())
    except InputError as error:
        for problem in error.problems:
            print(f"compare: error: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
