"""What a study's results say: statistics and findings, and the page that shows them. See `smx.report`."""
