"""The engine: the one loop that trains every game. It knows turns and players, never a model's or a loss's name."""
