"""The focus map of a slide: positions in, surface out."""
