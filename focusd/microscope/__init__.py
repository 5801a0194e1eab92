"""Hardware: what focusd needs of a microscope, the three that provide it, and the guard of the stage.

A microscope is a camera and a z stage behind the `Microscope` protocol: any Micro-Manager configuration, a
simulated one, or a recorded stack. `GuardedStage` is the only caller of `Microscope.move_to`.
"""
