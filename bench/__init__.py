"""Every figure in the documents comes out of a command here: `python -m bench NAME`."""
