"""`python -m omniconv`: the same as the command `omniconv`."""

from omniconv.cli import main

if __name__ == "__main__":
    main()
