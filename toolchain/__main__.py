"""python -m toolchain: the same as the command mostool."""

import sys

from toolchain.cli import main

if __name__ == "__main__":
    sys.exit(main())
