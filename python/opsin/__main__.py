"""`python -m opsin` is the command `opsin`."""

import sys

from opsin.cli import main

if __name__ == "__main__":
    sys.exit(main())
