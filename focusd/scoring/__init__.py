"""From a frame to focus measures: tiling, preprocessing, the network, and the classical measures."""
