"""Refine the people of a scene folder: ``python run_fit.py [config.yaml] key=value ...``."""

import sys

from depthfit.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["fit", *sys.argv[1:]]))
