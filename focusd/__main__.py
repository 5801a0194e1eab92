"""`python -m focusd` is `focusd`."""

from focusd.cli import main

if __name__ == "__main__":
    main()
