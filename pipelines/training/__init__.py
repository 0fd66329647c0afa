"""How a source becomes records, and records a model: here, or on Ray Train."""
