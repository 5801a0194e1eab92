"""Physics alone: pupil, Zernike polynomials, point spread function, depth of field, image formation.

Everything is written with torch and batched, so that the same physics runs one frame of the simulator,
thousands of training patches and, where there is one, on a GPU.
"""
