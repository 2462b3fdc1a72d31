"""The pure floor: formats, framing, header policy, bounded copies. No I/O, no clock, no randomness."""
