"""Differential privacy: what one row can change is bounded, by noise on counts and on gradients"""
