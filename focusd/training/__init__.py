"""How the network is made: textures, synthesis of labelled frames, training."""
