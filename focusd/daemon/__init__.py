"""The running thing: the rig's hardware without blocking, the operations on it, jobs, events, state on disk.

It brings the rooms below together and knows nothing of sockets; `focusd.server` puts it on the network.
"""
