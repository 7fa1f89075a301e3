"""`python -m lesionseg.predict PHOTOGRAPH_OR_FOLDER... --output DIR`."""

import sys

from lesionseg.predict.command import main

if __name__ == "__main__":
    sys.exit(main())
