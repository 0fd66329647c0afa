"""How good synthetic tables are. Every measure stands beside the same measure for real rows against real rows."""
