"""``python -m pstate`` is the command line."""

import sys

from pstate.cli import main

if __name__ == "__main__":
    sys.exit(main())
