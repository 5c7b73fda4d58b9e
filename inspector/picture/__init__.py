"""Pictures of a net: what is drawn (scene), where it stands (layout), and how it is written (svg, dot, page)."""
