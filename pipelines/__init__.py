"""Floor 2: sources, sinks, runners, tracking, and one file per verb. Knows Ray and MLflow, not how a model works."""
