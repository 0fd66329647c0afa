"""One file a score: `score(model, x, log_measure) -> (rows, fields) or (rows,)`, higher = more anomalous."""
