"""Pictures: bytes to pixels and back, Arrow columns of them, heat maps, augmentation"""
