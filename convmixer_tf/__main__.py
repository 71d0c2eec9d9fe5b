"""`python -m convmixer_tf`: the command `convmixer`."""

import sys

from convmixer_tf.cli import main

if __name__ == "__main__":
    sys.exit(main())
