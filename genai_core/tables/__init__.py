"""Tables: columns as tokens, numeric axes, sketches, conditions"""
