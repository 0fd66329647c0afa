"""Texts: tokens, surprise, odd words"""
