"""A net, its weights and its data opened, and measured on actors: what every command does; evaluate and inspect."""
