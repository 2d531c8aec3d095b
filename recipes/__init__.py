"""The recipes: one file a model, one function a published or reduced setting."""
