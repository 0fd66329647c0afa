"""Sounds: files, views of a sound, spectrograms"""
