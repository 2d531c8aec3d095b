"""The games: who plays, in which order, for which losses. A paper gets a file only where its play differs."""
