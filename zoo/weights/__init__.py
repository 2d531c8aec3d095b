"""The shipped weights: ``*.safetensors``, each with its Card in its header."""
