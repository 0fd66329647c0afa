"""Every figure that the project states, by a script that stores it under `results/`."""
