"""Tables of the op families."""
