"""`python -m focusd.ctl`."""

from focusd.ctl import main

main()
