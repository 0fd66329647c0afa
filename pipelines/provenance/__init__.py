"""Who made a file, of what, and whether it is still as it was made: keys, signatures, verification, cards."""
