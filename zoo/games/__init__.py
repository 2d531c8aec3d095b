"""The games: turns and losses. A paper gets a file only if its training procedure differs."""
