"""One file a modality: Arrow records to tensors and back."""
