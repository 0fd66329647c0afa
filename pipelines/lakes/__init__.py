"""A lake over time: what is new, what has changed, what has drifted."""
