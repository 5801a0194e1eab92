"""`python -m bench faults`: the fault matrix, a fuzz of the wire, a state machine over the guard."""
