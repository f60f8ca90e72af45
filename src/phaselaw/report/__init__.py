"""Tables in, words and plots out: a document of sections, rendered for a terminal, as Markdown and as HTML."""
