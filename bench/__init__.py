"""Every figure in the README comes out of a command here: `python -m bench NAME`."""
