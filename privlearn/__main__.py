"""``python -m privlearn``: the same as the command ``privlearn``."""

from privlearn.cli import main

if __name__ == "__main__":
    main()
