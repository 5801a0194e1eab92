"""Hold: drift and lock, as pure decisions. No I/O, no clock, no hardware."""
