"""One file a family; no model imports another model."""
