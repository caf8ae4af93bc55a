"""What a sweep or a run came to: gathered from run directories, shown on a terminal, as a page and as Markdown."""
