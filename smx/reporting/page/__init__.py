"""The page of a report: its parts, and the template that shows them."""
